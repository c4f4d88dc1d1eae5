/** The runtime: onnxruntime-web, in one thread. */

import { env } from "onnxruntime-web/wasm";

/** Hand the runtime to onnxruntime-web, before the first session; one thread needs no cross-origin isolation. */
export function useRuntime(binary?: Uint8Array): void {
  env.wasm.numThreads = 1;
  if (binary) env.wasm.wasmBinary = binary;
}
