import net from "node:net";

/** Bytes of array buffers that were asked for, whether or not their pages were touched. */
export interface BufferMeter {
  bytes: number;
}

const bufferTypes = [
  "ArrayBuffer",
  "SharedArrayBuffer",
  "Uint8Array",
  "Int8Array",
  "Uint8ClampedArray",
  "Uint16Array",
  "Int16Array",
  "Uint32Array",
  "Int32Array",
  "Float32Array",
  "Float64Array",
  "BigInt64Array",
  "BigUint64Array",
] as const;

type BufferConstructor = { readonly BYTES_PER_ELEMENT?: number } & (new (
  ...args: unknown[]
) => object);

/**
 * Counts what is asked for by size. A gibibyte of zeros takes no memory before it is written, so the process's
 * resident memory does not show it. To be installed before what is watched is loaded.
 */
export function meterBuffers(): BufferMeter {
  const meter: BufferMeter = { bytes: 0 };
  const count = (size: unknown, bytesPerElement: number): void => {
    if (typeof size === "number" && Number.isFinite(size)) meter.bytes += size * bytesPerElement;
  };
  const globals = globalThis as unknown as Record<string, BufferConstructor>;
  for (const name of bufferTypes) {
    const original = globals[name] as BufferConstructor;
    const counted: BufferConstructor = new Proxy(original, {
      construct(target, args: unknown[], newTarget) {
        count(args[0], original.BYTES_PER_ELEMENT ?? 1);
        const made = newTarget === counted ? target : newTarget;
        return Reflect.construct(target, args, made) as object;
      },
    });
    globals[name] = counted;
  }
  for (const name of ["alloc", "allocUnsafe", "allocUnsafeSlow"] as const) {
    const original = Buffer[name].bind(Buffer) as (...args: unknown[]) => Buffer;
    Object.defineProperty(Buffer, name, {
      value: (...args: unknown[]) => {
        count(args[0], 1);
        return original(...args);
      },
    });
  }
  return meter;
}

/** Addresses beyond this machine that something tried to reach; none is reached. */
export function refuseNetwork(): string[] {
  const tried: string[] = [];
  const connect = net.Socket.prototype.connect as (...args: unknown[]) => net.Socket;
  net.Socket.prototype.connect = function guarded(this: net.Socket, ...args: unknown[]) {
    // node hands over its own normalised list of arguments.
    const [first] = (Array.isArray(args[0]) ? args[0] : args) as unknown[];
    const { host, path } = (typeof first === "object" && first !== null ? first : {}) as {
      readonly host?: string;
      readonly path?: string;
    };
    if (host === "127.0.0.1" || (host === undefined && path === undefined)) {
      return connect.apply(this, args);
    }
    tried.push(String(host ?? path));
    throw new Error(`a connection to ${String(host ?? path)}`);
  } as typeof net.Socket.prototype.connect;
  return tried;
}
