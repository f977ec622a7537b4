// Requests to the server this page came from, with the key where there is one, and what it says when it refuses.

const KEY = "mirrorchat.key"; // in the tab's own storage: gone when it is closed

let key = stored();

/** Why something did not work: `code` as in the server's errors or one of the page's own (words.js has them all). */
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

/** Do something with the tab's storage; where browsers are told to keep nothing, the page remembers by itself. */
function whereAllowed(something) {
  try {
    return something(sessionStorage);
  } catch {
    return undefined;
  }
}

/** Fetch `path` of this server. Throws a Refusal for every answer but a good one, AbortError when it was called off. */
export async function request(path, options = {}) {
  const headers = hasKey() ? { Authorization: `Bearer ${key}` } : {};
  const response = await reach(fetch(path, { ...options, headers, cache: "no-store" }));
  if (!response.ok) throw await refusalFrom(response);
  return response;
}

/** Wait for something of the network; when that is gone, say so as a Refusal. */
export async function reach(promise) {
  try {
    return await promise;
  } catch (error) {
    throw error.name === "AbortError" ? error : new Refusal("network_gone");
  }
}

/** Return the Refusal that an error of the server's means. */
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
