// A homeserver that registers an appservice, submits a room's life and watches it being delivered. See README.md.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	pb "example.org/homeserver/gen/matrix/appservice/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const (
	attemptsMax  = 5
	callTimeout  = 10 * time.Second
	allTimeout   = 40 * time.Second
	defaultDelay = time.Second
	bodyBytesMax = 2 << 20
)

func main() {
	log.SetFlags(0)
	ctx, cancel := context.WithTimeout(context.Background(), allTimeout)
	defer cancel()
	if err := run(ctx); err != nil {
		log.Fatalf("FAILED: %v", err)
	}
}

func run(ctx context.Context) error {
	operator, err := withToken(ctx, "ROUTER_ADMIN_TOKEN")
	if err != nil {
		return err
	}
	homeserver, err := withToken(ctx, "ROUTER_HOMESERVER_TOKEN")
	if err != nil {
		return err
	}
	address := os.Getenv("ROUTER_ADDRESS")
	if address == "" {
		address = "127.0.0.1:50051"
	}
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	admin, router := pb.NewAppserviceAdminClient(connection), pb.NewAppserviceRouterClient(connection)

	bridge, err := startAppservice()
	if err != nil {
		return err
	}
	defer bridge.server.Close()
	put, err := retried(operator, admin.PutRegistration, &pb.PutRegistrationRequest{Source: &pb.PutRegistrationRequest_Yaml{Yaml: bridge.registration()}})
	if err != nil {
		return err
	}
	fmt.Println("registered", put.GetRegistration().GetId())
	for _, warning := range put.GetWarnings() {
		fmt.Printf("warning %s: %s\n", warning.GetCode(), warning.GetMessage())
	}

	// The watch goes out before the first event and on the same connection, so it misses none.
	watch, err := admin.WatchEvents(operator, &pb.WatchEventsRequest{AppserviceIds: []string{"example-go"}})
	if err != nil {
		return err
	}
	submission, ids := roomLife(fmt.Sprintf("go%d", time.Now().UnixMilli()))
	first, err := retried(homeserver, router.SubmitEvents, submission)
	if err != nil {
		return err
	}
	fmt.Printf("submitted: %d accepted, %d routed, stream position %d\n", first.GetAccepted(), first.GetRouted(), first.GetStreamPosition())
	// As after an answer that was lost: the positions say that all of it is there already.
	second, err := retried(homeserver, router.SubmitEvents, submission)
	if err != nil {
		return err
	}
	fmt.Printf("submitted again: %d duplicates\n", second.GetDuplicates())

	if err := ask(homeserver, router); err != nil {
		return err
	}
	delivered, err := countDelivered(watch, len(ids))
	if err != nil {
		return err
	}
	received := bridge.received()
	if !slices.Equal(received, ids) || int(second.GetDuplicates()) != len(ids) {
		return fmt.Errorf("received %v, duplicates %d", received, second.GetDuplicates())
	}
	fmt.Printf("done: %d of %d events received in order, %d seen delivered, %d duplicates recognised\n", len(received), len(ids), delivered, second.GetDuplicates())
	return nil
}

// ask asks who claims an alias and who may create one, and shows what an error tells.
func ask(ctx context.Context, router pb.AppserviceRouterClient) error {
	claim, err := retried(ctx, router.CheckNamespace, &pb.CheckNamespaceRequest{Subject: &pb.CheckNamespaceRequest_RoomAlias{RoomAlias: "#example_tea:localhost"}})
	if err != nil {
		return err
	}
	fmt.Printf("#example_tea:localhost is claimed by %s, exclusively: %t\n", strings.Join(claim.GetExclusiveAppserviceIds(), ", "), claim.GetExclusive())

	_, err = retried(ctx, router.AuthorizeIdentifier, &pb.AuthorizeIdentifierRequest{
		Subject: &pb.AuthorizeIdentifierRequest_RoomAlias{RoomAlias: "#example_new:localhost"},
		Action:  pb.AuthorizeIdentifierRequest_ACTION_CREATE,
		Actor:   &pb.AuthorizeIdentifierRequest_PersonUserId{PersonUserId: "@alice:localhost"},
	})
	refusal, found := detail[*errdetails.ErrorInfo](err)
	if !found || status.Code(err) != codes.PermissionDenied || refusal.GetReason() != "APPSERVICE_NAMESPACE_CONFLICT" {
		return fmt.Errorf("AuthorizeIdentifier was not refused as it should be: %w", orNone(err))
	}
	answer := refusal.GetMetadata()
	fmt.Printf("@alice:localhost may not create #example_new:localhost: %s, answer %s %s\n", refusal.GetReason(), answer["http_status"], answer["errcode"])

	_, err = retried(ctx, router.SubmitEvents, &pb.SubmitEventsRequest{Events: []*pb.Event{{Json: []byte(`{"type": 7}`)}}})
	malformed, found := detail[*errdetails.BadRequest](err)
	if !found || len(malformed.GetFieldViolations()) == 0 || malformed.GetFieldViolations()[0].GetField() != "events[0].json" {
		return fmt.Errorf("SubmitEvents did not name the malformed field: %w", orNone(err))
	}
	violation := malformed.GetFieldViolations()[0]
	fmt.Printf("an event that is none: %s: %s\n", violation.GetField(), violation.GetDescription())
	return nil
}

// retried repeats a call while the router cannot take it, after the delay that it asks for. That is safe for submissions:
// their stream positions make what was taken over a duplicate.
func retried[Request, Answer any](ctx context.Context, call func(context.Context, *Request, ...grpc.CallOption) (*Answer, error), request *Request) (*Answer, error) {
	for attempt := 1; ; attempt++ {
		attemptCtx, cancel := context.WithTimeout(ctx, callTimeout)
		answer, err := call(attemptCtx, request)
		cancel()
		code := status.Code(err)
		if attempt == attemptsMax || (code != codes.Unavailable && code != codes.ResourceExhausted) {
			return answer, err
		}
		delay := defaultDelay
		if told, found := detail[*errdetails.RetryInfo](err); found {
			delay = told.GetRetryDelay().AsDuration()
		}
		fmt.Printf("%s: again in %d ms\n", code, delay.Milliseconds())
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// detail finds the detail of an error that has this type.
func detail[Detail any](err error) (Detail, bool) {
	for _, each := range status.Convert(err).Details() {
		if found, is := each.(Detail); is {
			return found, true
		}
	}
	var none Detail
	return none, false
}

func orNone(err error) error {
	if err == nil {
		return errors.New("there was no error")
	}
	return err
}

func withToken(ctx context.Context, name string) (context.Context, error) {
	token := os.Getenv(name)
	if token == "" {
		return nil, fmt.Errorf("set %s; the router's first start wrote it to data/credentials.json", name)
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token), nil
}

// roomLife is a room from its creation on, and the ids of its events. `name` makes room and stream new in every run.
func roomLife(name string) (*pb.SubmitEventsRequest, []string) {
	const alice = "@alice:localhost"
	roomID := "!" + name + ":localhost"
	life := []map[string]any{
		{"type": "m.room.create", "state_key": "", "content": map[string]any{"room_version": "11"}},
		{"type": "m.room.member", "state_key": alice, "content": map[string]any{"membership": "join"}},
	}
	for _, body := range []string{"Hello", "Anybody here?", "Bye"} {
		life = append(life, map[string]any{"type": "m.room.message", "content": map[string]any{"msgtype": "m.text", "body": body}})
	}
	request := &pb.SubmitEventsRequest{
		Stream: &name,
		Rooms: []*pb.RoomContext{{
			RoomId:       roomID,
			LocalAliases: &pb.RoomContext_LocalAliases{RoomAliases: []string{"#example_tea:localhost"}},
			LocalMembers: &pb.RoomContext_LocalMembers{},
		}},
	}
	var ids []string
	for at, event := range life {
		id := fmt.Sprintf("$%s-%d", name, at)
		event["event_id"], event["room_id"], event["sender"], event["origin_server_ts"] = id, roomID, alice, time.Now().UnixMilli()
		text, err := json.Marshal(event)
		if err != nil {
			panic(err) // Maps of strings and numbers always have a JSON form.
		}
		request.Events = append(request.Events, &pb.Event{Json: text, StreamPosition: int64(at + 1)})
		ids = append(ids, id)
	}
	return request, ids
}

// countDelivered reads the watch until as many events are delivered.
func countDelivered(watch grpc.ServerStreamingClient[pb.WatchEventsResponse], wanted int) (int, error) {
	delivered := 0
	for delivered < wanted {
		told, err := watch.Recv()
		if err != nil {
			return delivered, err
		}
		delivered += int(told.GetEventsDelivered().GetEventCount())
	}
	return delivered, nil
}

// appservice is the other side: it takes transactions and says so with 200, and takes none twice.
type appservice struct {
	server *http.Server
	port   int
	mutex  sync.Mutex
	seen   map[string]bool
	ids    []string
}

func startAppservice() (*appservice, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	a := &appservice{port: listener.Addr().(*net.TCPAddr).Port, seen: map[string]bool{}}
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /_matrix/app/v1/transactions/{txnID}", a.transaction)
	a.server = &http.Server{Handler: mux, ReadTimeout: callTimeout}
	go func() { _ = a.server.Serve(listener) }()
	return a, nil
}

func (a *appservice) transaction(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer example-secret-that-the-router-sends-go" {
		http.Error(w, `{"errcode":"M_FORBIDDEN"}`, http.StatusForbidden)
		return
	}
	var body struct {
		Events []struct {
			EventID string `json:"event_id"`
		} `json:"events"`
	}
	if err := json.NewDecoder(io.LimitReader(r.Body, bodyBytesMax)).Decode(&body); err != nil {
		http.Error(w, `{"errcode":"M_NOT_JSON"}`, http.StatusBadRequest)
		return
	}
	a.mutex.Lock()
	if txnID := r.PathValue("txnID"); !a.seen[txnID] {
		a.seen[txnID] = true
		for _, event := range body.Events {
			a.ids = append(a.ids, event.EventID)
		}
	}
	a.mutex.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, "{}")
}

func (a *appservice) received() []string {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	return slices.Clone(a.ids)
}

func (a *appservice) registration() string {
	return fmt.Sprintf(`id: example-go
url: http://127.0.0.1:%d
as_token: example-secret-that-the-appservice-sends-go
hs_token: example-secret-that-the-router-sends-go
sender_localpart: example-go
rate_limited: false
namespaces:
  aliases:
    - regex: "#example_.*:localhost"
      exclusive: true
`, a.port)
}
