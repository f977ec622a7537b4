// Requests to the server of this page, with the key if there is one, and its refusals.

const KEY = "mirrorchat.key"; // in the storage of the tab, which ends with the tab

let key = stored();

/** A failure. `code` is one of the server's error codes or one of the page's own (words.js has them all). */
export class Refusal extends Error {
  constructor(code, { message = "", status = 0, param = null, retryAfterS = null } = {}) {
    super(message);
    Object.assign(this, { code, status, param, retryAfterS });
  }
}

export function keepKey(next) {
  key = next;
  whereAllowed((storage) => storage.setItem(KEY, next));
}

export function dropKey() {
  key = null;
  whereAllowed((storage) => storage.removeItem(KEY));
}

export function hasKey() {
  return key !== null;
}

function stored() {
  return whereAllowed((storage) => storage.getItem(KEY)) ?? null;
}

/** Use the storage of the tab. If the browser blocks it, the page keeps the value itself. */
function whereAllowed(something) {
  try {
    return something(sessionStorage);
  } catch {
    return undefined;
  }
}

/** Fetch `path` of this server. Throws a Refusal for an error, and AbortError after a cancellation. */
export async function request(path, options = {}) {
  const headers = hasKey() ? { Authorization: `Bearer ${key}` } : {};
  const response = await reach(fetch(path, { ...options, headers, cache: "no-store" }));
  if (!response.ok) throw await refusalFrom(response);
  return response;
}

/** Wait for a promise of the network. Throws a Refusal when the network fails. */
export async function reach(promise) {
  try {
    return await promise;
  } catch (error) {
    throw error.name === "AbortError" ? error : new Refusal("network_gone");
  }
}

/** Return the Refusal for an error of the server. */
export function refusalOf(error, status = 0, retryAfterS = null) {
  return new Refusal(error.code ?? "internal_error", { message: error.message, status, param: error.param, retryAfterS });
}

async function refusalFrom(response) {
  const retryAfterS = Number.parseInt(response.headers.get("Retry-After"), 10) || null;
  try {
    return refusalOf((await response.json()).error, response.status, retryAfterS);
  } catch {
    return new Refusal("internal_error", { message: `HTTP ${response.status}`, status: response.status, retryAfterS });
  }
}
