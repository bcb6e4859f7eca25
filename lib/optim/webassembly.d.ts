/** The part of the WebAssembly API that the kernels need; the compiler's ES libraries leave it out. */
declare namespace WebAssembly {
  class Module {}
  class Instance {
    readonly exports: Record<string, unknown>;
  }
  class Memory {
    constructor(options: { initial: number; maximum: number; shared: boolean });
    readonly buffer: ArrayBuffer | SharedArrayBuffer;
  }
  function compile(bytes: Uint8Array): Promise<Module>;
  function instantiate(
    module: Module,
    imports: Record<string, Record<string, Memory>>,
  ): Promise<Instance>;
}
