// Builds the page into the Python package, from where `bccmt export web` takes it, and the library into dist/.
//
//     node build.mjs            page and library
//     node build.mjs --tests    the tests, into build/, for `node --test`

import { createHash } from "node:crypto";
import { copyFile, mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, brotliDecompressSync, constants } from "node:zlib";

import { build } from "esbuild";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const PAGE = join(HERE, "..", "speechbrain_bccmt", "page");
const STATIC = ["index.html", "style.css", "manifest.webmanifest", "icon.svg", "icon-192.png", "icon-512.png"];
const PACKED = {
  runtime: ["runtime.wasm", "node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.wasm"],
};
// The service worker is written last, with a list of the files in front: see speechbrain_bccmt/export/web.py.
const SERVICE_WORKER = "service-worker.js";

const common = { bundle: true, format: "esm", target: "es2022", charset: "utf8", logLevel: "warning", absWorkingDir: HERE };

if (process.argv.includes("--tests")) await buildTests();
else await Promise.all([buildPage(), buildLibrary()]);

async function buildPage() {
  // Next to its place, and moved there when complete.
  const folder = `${PAGE}.${process.pid}.partial`;
  await mkdir(folder, { recursive: true });
  try {
    await fillPage(folder);
    await rm(PAGE, { recursive: true, force: true });
    await rename(folder, PAGE);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function fillPage(folder) {
  await build({
    ...common,
    minify: true,
    legalComments: "none",
    outdir: folder,
    entryPoints: {
      app: "src/page/app.ts",
      engine: "src/page/engine.ts",
      recorder: "src/page/recorder.ts",
      "service-worker": "src/page/service-worker.ts",
    },
    // Parts of the runtime that only Node needs.
    external: ["module", "worker_threads"],
  });
  for (const name of STATIC) await copyFile(join(HERE, "src/page", name), join(folder, name));
  await copyFile(join(HERE, "NOTICE.txt"), join(folder, "NOTICE.txt"));
  const packed = {};
  for (const [use, [name, source]] of Object.entries(PACKED)) {
    const content = await readFile(join(HERE, source));
    const file = `${name}.brotli`;
    const small = (await packedBefore(file, content)) ?? pack(content);
    await writeFile(join(folder, file), small);
    const sha256 = createHash("sha256").update(content).digest("hex");
    packed[use] = { file, packed_bytes: small.length, bytes: content.length, sha256 };
  }
  const shell = (await readdir(folder)).filter((name) => !name.endsWith(".brotli") && name !== SERVICE_WORKER).sort();
  await writeFile(join(folder, "page.json"), `${JSON.stringify({ shell, packed }, null, 2)}\n`);
}

function pack(content) {
  const options = {
    [constants.BROTLI_PARAM_QUALITY]: constants.BROTLI_MAX_QUALITY,
    [constants.BROTLI_PARAM_LGWIN]: constants.BROTLI_MAX_WINDOW_BITS,
    [constants.BROTLI_PARAM_SIZE_HINT]: content.length,
  };
  return brotliCompressSync(content, { params: options });
}

// Packing takes half a minute, and the content seldom changes.
async function packedBefore(file, content) {
  try {
    const small = await readFile(join(PAGE, file));
    return brotliDecompressSync(small).equals(content) ? small : null;
  } catch {
    return null;
  }
}

async function buildLibrary() {
  await build({
    ...common,
    outfile: "dist/index.js",
    entryPoints: ["src/library/index.ts"],
    external: ["onnxruntime-web"],
  });
}

async function buildTests() {
  const names = (await readdir(join(HERE, "test"))).filter((name) => name.endsWith(".ts"));
  await build({
    ...common,
    outdir: "build",
    platform: "node",
    outExtension: { ".js": ".mjs" },
    entryPoints: names.map((name) => `test/${name}`),
    external: ["onnxruntime-web", "brotli"],
  });
}
