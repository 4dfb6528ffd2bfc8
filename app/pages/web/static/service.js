// Sends a picture to the service and returns its answer, which the service has rendered as HTML.

const MOST_TRIES = 6;
const KEY = "api-key"; // kept by this tab until it closes

/** Whether a key is printable ASCII, because headers can't carry other characters reliably. */
export const isKey = (text) => /^[ -~]+$/.test(text);
export const setKey = (key) => sessionStorage.setItem(KEY, key);

/** Returns the key, or nothing; removes a stored key that can't be sent. */
export function getKey() {
  const key = sessionStorage.getItem(KEY) ?? "";
  if (isKey(key)) return key;
  sessionStorage.removeItem(KEY);
  return "";
}

/** Sends a request, with the key if there is one. */
export function ask(url, options) {
  const headers = { Accept: "text/html" };
  if (getKey()) headers.Authorization = `Bearer ${getKey()}`;
  return fetch(url, { ...options, headers });
}

const parse = async (response) => {
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  return page.querySelector("main > article");
};

const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));

/** Waits for `Retry-After`; reports the remaining time every second. */
async function wait(seconds, [reason, summary], tell) {
  for (let left = seconds; left > 0; left -= 1) {
    tell(`${reason} Trying again in ${left}\u00a0s`, `${summary}, tries again`);
    await sleep(Math.min(1, left));
  }
}

/** Returns the reason for waiting: a sentence, and a short form for the status. */
function explain(status, article) {
  if (status === 429) return ["The service is busy.", "busy"];
  return [article?.querySelector("p")?.textContent ?? "The service is not ready.", "not ready"];
}

/**
 * Posts `file` until it gets a final answer; calls `tell` with the progress and, while it waits, the reason in short.
 * @returns {Promise<{kind: string, article?: Element, milliseconds?: number, said?: string}>} the kind is result,
 *   refused (it must change first), failed (it may succeed at another try), unreadable, locked, unexpected or
 *   unreachable
 */
export async function classify(url, file, tell) {
  try {
    await file.slice(0, 1).arrayBuffer();
  } catch {
    return { kind: "unreadable" }; // fetch would fail as without a network
  }
  for (let attempt = 1; ; attempt += 1) {
    const body = new FormData();
    body.append("file", file, file.name);
    const key = getKey();
    tell("Classifying …");
    const begun = performance.now();
    let response;
    let article;
    try {
      response = await ask(url, { method: "POST", body });
      article = await parse(response);
    } catch {
      return { kind: "unreachable" };
    }
    const milliseconds = performance.now() - begun;
    if (response.status === 401) {
      if (key !== getKey()) continue; // the user has typed another key
      return { kind: "locked" };
    }
    if (response.ok && article) return { kind: "result", article, milliseconds };
    const seconds = Number(response.headers.get("Retry-After"));
    if (!seconds || attempt === MOST_TRIES) {
      if (!article) return { kind: "unexpected", said: `${response.status} ${response.statusText}` };
      const mustChange = response.status < 500 && response.status !== 408 && !seconds; // 408: the upload was too slow
      return { kind: mustChange ? "refused" : "failed", article };
    }
    await wait(seconds, explain(response.status, article), tell);
  }
}

/** Fetches the page again; throws if the answer is not a page of this service. */
export async function fetchPage(url) {
  const response = await ask(url);
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  if (!page.querySelector("#model")) throw new Error(`no page of the service: ${response.status}`);
  return page;
}
