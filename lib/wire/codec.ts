import { join } from "node:path";
import type grpc from "@grpc/grpc-js";
import protobuf from "protobufjs";
import { LockstepError } from "#lib/core/errors/index";
import { packageRoot } from "#lib/core/paths";
import { Fields, type Plain } from "./message-fields.js";

/** Between a message's type here and its protobuf form. */
export interface Codec<T> {
  encode(value: T): Buffer;
  decode(buffer: Buffer): T;
}

type MakeCodec = <T>(
  name: string,
  toPlain: (value: T) => Plain,
  parse: (fields: Fields) => T,
) => Codec<T>;

/**
 * Codecs of the messages of a .proto file, which is read itself, so that there is one source of field numbers. Every
 * field from outside is checked by `parse`.
 */
export function codecsOf(protoFile: string): MakeCodec {
  const schema = protobuf.loadSync(join(packageRoot, "proto/lockstep/v1", protoFile));
  return (name, toPlain, parse) => {
    const type = schema.lookupType(`lockstep.v1.${name}`);
    return {
      encode: (value) => Buffer.from(type.encode(type.fromObject({ ...toPlain(value) })).finish()),
      decode: (buffer) => {
        let plain: Plain;
        try {
          plain = type.toObject(type.decode(buffer), {
            defaults: true,
            arrays: true,
            oneofs: true,
            bytes: Buffer,
          });
        } catch (cause) {
          throw new LockstepError(
            "E_MESSAGE_INVALID",
            { message: name, field: "the whole", reason: "is not protobuf of this type" },
            { cause },
          );
        }
        return parse(new Fields(name, plain));
      },
    };
  };
}

/** Definitions of a service's methods, of which one answers a request. */
export const methodsOf =
  (service: string, responseStream = false) =>
  <Request, Reply>(
    name: string,
    request: Codec<Request>,
    reply: Codec<Reply>,
  ): grpc.MethodDefinition<Request, Reply> => ({
    path: `/lockstep.v1.${service}/${name}`,
    requestStream: false,
    responseStream,
    requestSerialize: request.encode,
    requestDeserialize: request.decode,
    responseSerialize: reply.encode,
    responseDeserialize: reply.decode,
  });
