import com.google.gson.Gson;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.protobuf.Any;
import com.google.protobuf.ByteString;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.protobuf.Descriptors.ServiceDescriptor;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientInterceptors;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import io.grpc.protobuf.ProtoUtils;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.MetadataUtils;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashSet;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;
import matrix.appservice.v1.AppserviceAdminService;
import matrix.appservice.v1.AppserviceAdminService.PutRegistrationRequest;
import matrix.appservice.v1.AppserviceAdminService.PutRegistrationResponse;
import matrix.appservice.v1.AppserviceAdminService.WatchEventsRequest;
import matrix.appservice.v1.AppserviceAdminService.WatchEventsResponse;
import matrix.appservice.v1.AppserviceRouterService;
import matrix.appservice.v1.AppserviceRouterService.AuthorizeIdentifierRequest;
import matrix.appservice.v1.AppserviceRouterService.AuthorizeIdentifierResponse;
import matrix.appservice.v1.AppserviceRouterService.CheckNamespaceRequest;
import matrix.appservice.v1.AppserviceRouterService.CheckNamespaceResponse;
import matrix.appservice.v1.AppserviceRouterService.SubmitEventsRequest;
import matrix.appservice.v1.AppserviceRouterService.SubmitEventsResponse;
import matrix.appservice.v1.EventOuterClass.Event;
import matrix.appservice.v1.EventOuterClass.RoomContext;

/** A homeserver that registers an appservice, submits a room's life and watches it being delivered. See README.md. */
public final class Homeserver {
  private static final int ATTEMPTS_MAX = 5;
  private static final int CALL_TIMEOUT_S = 10;
  private static final int WATCH_TIMEOUT_S = 30;
  private static final int DEFAULT_DELAY_MS = 1_000;
  private static final String ALICE = "@alice:localhost";
  private static final Gson GSON = new Gson();

  public static void main(String[] args) throws Exception {
    String address = System.getenv().getOrDefault("ROUTER_ADDRESS", "127.0.0.1:50051");
    ManagedChannel channel = NettyChannelBuilder.forTarget(address).usePlaintext().build();
    try (Appservice appservice = new Appservice()) {
      run(new Caller(channel, AppserviceAdminService.getDescriptor().findServiceByName("AppserviceAdmin"), "ROUTER_ADMIN_TOKEN"),
          new Caller(channel, AppserviceRouterService.getDescriptor().findServiceByName("AppserviceRouter"), "ROUTER_HOMESERVER_TOKEN"),
          appservice);
    } finally {
      channel.shutdownNow().awaitTermination(CALL_TIMEOUT_S, TimeUnit.SECONDS);
    }
  }

  private static void run(Caller admin, Caller router, Appservice appservice) {
    PutRegistrationRequest put = PutRegistrationRequest.newBuilder().setYaml(appservice.registration()).build();
    PutRegistrationResponse registered = retried(() -> admin.call("PutRegistration", put, PutRegistrationResponse.getDefaultInstance()));
    System.out.println("registered " + registered.getRegistration().getId());
    registered.getWarningsList().forEach((warning) -> System.out.printf("warning %s: %s%n", warning.getCode(), warning.getMessage()));

    // The watch goes out before the first event and on the same connection, so it misses none.
    Iterator<WatchEventsResponse> watch = admin.stream("WatchEvents", WatchEventsRequest.newBuilder().addAppserviceIds("example-java").build(), WatchEventsResponse.getDefaultInstance());
    List<String> ids = new ArrayList<>();
    SubmitEventsRequest submission = roomLife("java" + System.currentTimeMillis(), ids);
    SubmitEventsResponse first = submit(router, submission);
    System.out.printf("submitted: %d accepted, %d routed, stream position %d%n", first.getAccepted(), first.getRouted(), first.getStreamPosition());
    // As after an answer that was lost: the positions say that all of it is there already.
    SubmitEventsResponse second = submit(router, submission);
    System.out.printf("submitted again: %d duplicates%n", second.getDuplicates());

    ask(router);
    int delivered = 0;
    while (delivered < ids.size() && watch.hasNext()) delivered += watch.next().getEventsDelivered().getEventCount();
    List<String> received = appservice.received();
    require(received.equals(ids) && second.getDuplicates() == ids.size(), "received " + received + ", duplicates " + second.getDuplicates());
    System.out.printf("done: %d of %d events received in order, %d seen delivered, %d duplicates recognised%n", received.size(), ids.size(), delivered, second.getDuplicates());
  }

  private static SubmitEventsResponse submit(Caller router, SubmitEventsRequest request) {
    return retried(() -> router.call("SubmitEvents", request, SubmitEventsResponse.getDefaultInstance()));
  }

  /** Asks who claims an alias and who may create one, and shows what an error tells. */
  private static void ask(Caller router) {
    CheckNamespaceRequest check = CheckNamespaceRequest.newBuilder().setRoomAlias("#example_tea:localhost").build();
    CheckNamespaceResponse claim = retried(() -> router.call("CheckNamespace", check, CheckNamespaceResponse.getDefaultInstance()));
    System.out.printf("#example_tea:localhost is claimed by %s, exclusively: %b%n", String.join(", ", claim.getExclusiveAppserviceIdsList()), claim.getExclusive());

    AuthorizeIdentifierRequest wish = AuthorizeIdentifierRequest.newBuilder()
        .setRoomAlias("#example_new:localhost").setAction(AuthorizeIdentifierRequest.Action.ACTION_CREATE).setPersonUserId(ALICE).build();
    StatusRuntimeException refused = refused(() -> router.call("AuthorizeIdentifier", wish, AuthorizeIdentifierResponse.getDefaultInstance()));
    ErrorInfo refusal = detail(refused, ErrorInfo.class).orElseThrow(() -> refused);
    require(refusal.getReason().equals("APPSERVICE_NAMESPACE_CONFLICT"), refusal.getReason());
    Map<String, String> answer = refusal.getMetadataMap();
    System.out.printf("%s may not create #example_new:localhost: %s, answer %s %s%n", ALICE, refusal.getReason(), answer.get("http_status"), answer.get("errcode"));

    SubmitEventsRequest none = SubmitEventsRequest.newBuilder().addEvents(Event.newBuilder().setJson(ByteString.copyFromUtf8("{\"type\": 7}"))).build();
    StatusRuntimeException invalid = refused(() -> submit(router, none));
    BadRequest.FieldViolation violation = detail(invalid, BadRequest.class).orElseThrow(() -> invalid).getFieldViolations(0);
    require(violation.getField().equals("events[0].json"), violation.getField());
    System.out.printf("an event that is none: %s: %s%n", violation.getField(), violation.getDescription());
  }

  /**
   * Repeats a call while the router cannot take it, after the delay that it asks for. That is safe for submissions: their
   * stream positions make what was taken over a duplicate.
   */
  private static <A> A retried(Supplier<A> call) {
    for (int attempt = 1; ; attempt++) {
      try {
        return call.get();
      } catch (StatusRuntimeException error) {
        Status.Code code = error.getStatus().getCode();
        if (attempt == ATTEMPTS_MAX || (code != Status.Code.UNAVAILABLE && code != Status.Code.RESOURCE_EXHAUSTED)) throw error;
        long delayMs = detail(error, RetryInfo.class)
            .map((told) -> told.getRetryDelay().getSeconds() * 1_000 + told.getRetryDelay().getNanos() / 1_000_000)
            .orElse((long) DEFAULT_DELAY_MS);
        System.out.printf("%s: again in %d ms%n", code, delayMs);
        try {
          Thread.sleep(delayMs);
        } catch (InterruptedException interrupted) {
          Thread.currentThread().interrupt();
          throw error;
        }
      }
    }
  }

  /** The error of a call that must not succeed. */
  private static StatusRuntimeException refused(Supplier<?> call) {
    try {
      call.get();
    } catch (StatusRuntimeException error) {
      return error;
    }
    throw new IllegalStateException("FAILED: the router took what it has to refuse");
  }

  /** The detail of an error that is a message of this type. */
  private static <D extends Message> Optional<D> detail(StatusRuntimeException error, Class<D> type) {
    com.google.rpc.Status status = StatusProto.fromThrowable(error);
    if (status == null) return Optional.empty();
    try {
      for (Any each : status.getDetailsList()) if (each.is(type)) return Optional.of(each.unpack(type));
      return Optional.empty();
    } catch (InvalidProtocolBufferException unreadable) {
      return Optional.empty();
    }
  }

  private static void require(boolean holds, String otherwise) {
    if (!holds) throw new IllegalStateException("FAILED: " + otherwise);
  }

  /** A room from its creation on; adds the ids of its events. `name` makes room and stream new in every run. */
  private static SubmitEventsRequest roomLife(String name, List<String> ids) {
    String roomId = "!" + name + ":localhost";
    List<Map<String, Object>> life = new ArrayList<>();
    life.add(Map.of("type", "m.room.create", "state_key", "", "content", Map.of("room_version", "11")));
    life.add(Map.of("type", "m.room.member", "state_key", ALICE, "content", Map.of("membership", "join")));
    for (String body : List.of("Hello", "Anybody here?", "Bye")) life.add(Map.of("type", "m.room.message", "content", Map.of("msgtype", "m.text", "body", body)));
    SubmitEventsRequest.Builder request = SubmitEventsRequest.newBuilder().setStream(name).addRooms(RoomContext.newBuilder()
        .setRoomId(roomId)
        .setLocalAliases(RoomContext.LocalAliases.newBuilder().addRoomAliases("#example_tea:localhost"))
        .setLocalMembers(RoomContext.LocalMembers.getDefaultInstance()));
    for (Map<String, Object> each : life) {
      JsonObject event = GSON.toJsonTree(each).getAsJsonObject();
      String id = "$" + name + "-" + ids.size();
      event.addProperty("event_id", id);
      event.addProperty("room_id", roomId);
      event.addProperty("sender", ALICE);
      event.addProperty("origin_server_ts", System.currentTimeMillis());
      ids.add(id);
      request.addEvents(Event.newBuilder().setJson(ByteString.copyFromUtf8(GSON.toJson(event))).setStreamPosition(ids.size()));
    }
    return request.build();
  }

  /** Calls the methods of a service with a token. Each method is made from what protoc generated of the service. */
  private static final class Caller {
    private final Channel channel;
    private final ServiceDescriptor service;

    Caller(Channel channel, ServiceDescriptor service, String tokenName) {
      String token = System.getenv(tokenName);
      require(token != null && !token.isEmpty(), "set " + tokenName + "; the router's first start wrote it to data/credentials.json");
      Metadata headers = new Metadata();
      headers.put(Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER), "Bearer " + token);
      this.channel = ClientInterceptors.intercept(channel, MetadataUtils.newAttachHeadersInterceptor(headers));
      this.service = service;
    }

    <Q extends Message, A extends Message> A call(String name, Q request, A answer) {
      return ClientCalls.blockingUnaryCall(channel, method(name, MethodDescriptor.MethodType.UNARY, request, answer), within(CALL_TIMEOUT_S), request);
    }

    <Q extends Message, A extends Message> Iterator<A> stream(String name, Q request, A answer) {
      return ClientCalls.blockingServerStreamingCall(channel, method(name, MethodDescriptor.MethodType.SERVER_STREAMING, request, answer), within(WATCH_TIMEOUT_S), request);
    }

    @SuppressWarnings("unchecked") // The default instance of a message has the message's own type.
    private <Q extends Message, A extends Message> MethodDescriptor<Q, A> method(String name, MethodDescriptor.MethodType type, Q request, A answer) {
      require(service.findMethodByName(name) != null, service.getFullName() + " has no method " + name);
      return MethodDescriptor.<Q, A>newBuilder()
          .setType(type)
          .setFullMethodName(MethodDescriptor.generateFullMethodName(service.getFullName(), name))
          .setRequestMarshaller(ProtoUtils.marshaller((Q) request.getDefaultInstanceForType()))
          .setResponseMarshaller(ProtoUtils.marshaller(answer))
          .build();
    }

    private static CallOptions within(int seconds) {
      return CallOptions.DEFAULT.withDeadlineAfter(seconds, TimeUnit.SECONDS);
    }
  }

  /** The other side: an appservice takes transactions and says so with 200, and takes none twice. */
  private static final class Appservice implements AutoCloseable {
    private static final String PATH = "/_matrix/app/v1/transactions/";
    private static final String HS_TOKEN = "example-secret-that-the-router-sends-java";
    private final HttpServer server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
    private final List<String> ids = Collections.synchronizedList(new ArrayList<>());
    private final Set<String> seen = new HashSet<>();

    Appservice() throws IOException {
      server.createContext(PATH, this::transaction);
      server.start();
    }

    // The server has one thread.
    private void transaction(HttpExchange exchange) throws IOException {
      boolean known = ("Bearer " + HS_TOKEN).equals(exchange.getRequestHeaders().getFirst("Authorization"));
      byte[] body = exchange.getRequestBody().readAllBytes();
      if (known && seen.add(exchange.getRequestURI().getPath().substring(PATH.length()))) {
        JsonObject transaction = GSON.fromJson(new String(body, StandardCharsets.UTF_8), JsonObject.class);
        for (JsonElement event : transaction.getAsJsonArray("events")) ids.add(event.getAsJsonObject().get("event_id").getAsString());
      }
      byte[] answer = (known ? "{}" : "{\"errcode\":\"M_FORBIDDEN\"}").getBytes(StandardCharsets.UTF_8);
      exchange.getResponseHeaders().set("Content-Type", "application/json");
      exchange.sendResponseHeaders(known ? 200 : 403, answer.length);
      try (exchange) {
        exchange.getResponseBody().write(answer);
      }
    }

    List<String> received() {
      return List.copyOf(ids);
    }

    String registration() {
      return """
          id: example-java
          url: http://127.0.0.1:%d
          as_token: example-secret-that-the-appservice-sends-java
          hs_token: %s
          sender_localpart: example-java
          rate_limited: false
          namespaces:
            aliases:
              - regex: "#example_.*:localhost"
                exclusive: true
          """.formatted(server.getAddress().getPort(), HS_TOKEN);
    }

    @Override
    public void close() {
      server.stop(0);
    }
  }
}
