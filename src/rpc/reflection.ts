/** Server reflection and health on the gRPC port, by the official companions of grpc-js. */
import type { DescFile, DescService } from '@bufbuild/protobuf';
import { toBinary } from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt';
import type { Server } from '@grpc/grpc-js';
import { file_grpc_health_v1_health as healthFile } from '../../gen/grpc/health/v1/health_pb.ts';
import { ReflectionService } from '@grpc/reflection';
import { HealthImplementation } from 'grpc-health-check';

/** What reflection reads of a package: encoded file descriptors. */
function fileDescriptors(roots: readonly DescFile[]): Buffer[] {
  const files = new Map<string, DescFile>();
  const add = (file: DescFile): void => {
    if (files.has(file.name)) return;
    files.set(file.name, file);
    for (const dependency of file.dependencies) add(dependency);
  };
  for (const file of roots) add(file);
  return [...files.values()].map(({ proto }) => Buffer.from(toBinary(FileDescriptorProtoSchema, proto)));
}

export function addReflection(server: Server, services: readonly DescService[]): void {
  // The descriptor that grpc-health-check itself brings names a map entry in a way that other languages refuse.
  const fileDescriptorProtos = fileDescriptors([...services.map(({ file }) => file), healthFile]);
  // Reflection reads nothing but the file descriptors of an entry; an enum's is the smallest kind of entry.
  const entry = { format: 'Protocol Buffer 3 EnumDescriptorProto' as const, type: {}, fileDescriptorProtos };
  new ReflectionService({ files: entry }).addToServer(server);
}

/** Serving until `stop`, for the whole server and for each service. */
export function addHealth(server: Server, services: readonly DescService[]): { stop(): void } {
  const names = ['', ...services.map(({ typeName }) => typeName)];
  const health = new HealthImplementation(Object.fromEntries(names.map((name) => [name, 'SERVING'])));
  health.addToServer(server);
  return {
    stop() {
      for (const name of names) health.setStatus(name, 'NOT_SERVING');
    },
  };
}
