/** Serves the page without a network: its files are cached, the large ones in a cache of their own. */

/** Prepended to this file by `bccmt export web`: a digest of the page, and its files. */
declare const SHELL: { readonly version: string; readonly files: readonly string[] };

interface ServiceWorkerScope extends EventTarget {
  readonly registration: ServiceWorkerRegistration;
  readonly clients: { claim(): Promise<void> };
  skipWaiting(): Promise<void>;
}
interface ExtendableEvent extends Event {
  waitUntil(promise: Promise<unknown>): void;
}
interface FetchEvent extends ExtendableEvent {
  readonly request: Request;
  respondWith(response: Promise<Response>): void;
}

const worker = globalThis as unknown as ServiceWorkerScope;
const PREFIX = `bccmt page ${worker.registration.scope} `;
const CACHE = PREFIX + SHELL.version;

worker.addEventListener("install", (event) => {
  (event as ExtendableEvent).waitUntil(install());
});

worker.addEventListener("activate", (event) => {
  (event as ExtendableEvent).waitUntil(activate());
});

worker.addEventListener("fetch", (event) => {
  const { request } = event as FetchEvent;
  if (request.method === "GET" && request.url.startsWith(worker.registration.scope)) {
    (event as FetchEvent).respondWith(answer(request));
  }
});

async function install(): Promise<void> {
  const cache = await caches.open(CACHE);
  await cache.addAll(SHELL.files.map((file) => new Request(file, { cache: "no-cache" })));
  await worker.skipWaiting();
}

async function activate(): Promise<void> {
  for (const name of await caches.keys()) {
    if (name.startsWith(PREFIX) && name !== CACHE) await caches.delete(name);
  }
  await worker.clients.claim();
}

async function answer(request: Request): Promise<Response> {
  const cache = await caches.open(CACHE);
  const kept = await cache.match(request, { ignoreSearch: true });
  return kept ?? fetch(request);
}

export {};
