// Sends one picture to the service and gives its answer, which the service has written as HTML already.

const MOST_TRIES = 6;
const KEY = "api-key"; // kept by this tab until it closes

/** Whether a service can have such a key: no header is sure to carry other characters. */
export const isKey = (text) => /^[ -~]+$/.test(text);
export const setKey = (key) => sessionStorage.setItem(KEY, key);

/** Gives the key, or nothing; what was kept but can't be sent goes. */
export function getKey() {
  const key = sessionStorage.getItem(KEY) ?? "";
  if (isKey(key)) return key;
  sessionStorage.removeItem(KEY);
  return "";
}

/** Asks the service, with the key, if there is one. */
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

/** Waits as long as the service asked for; tells every second how long that still is. */
async function wait(seconds, [reason, summary], tell) {
  for (let left = seconds; left > 0; left -= 1) {
    tell(`${reason} Trying again in ${left}\u00a0s`, `${summary}, tries again`);
    await sleep(Math.min(1, left));
  }
}

/** Says why there is no answer yet, in the service's own words where they tell more, and in short. */
function explain(status, article) {
  if (status === 429) return ["The service is busy.", "busy"];
  return [article?.querySelector("p")?.textContent ?? "The service is not ready.", "not ready"];
}

/**
 * Posts `file` until it is answered for good; `tell` gets what goes on, and in short what it waits for, if it does.
 * @returns {Promise<{kind: string, article?: Element, milliseconds?: number, said?: string}>} the kind is result,
 *   refused (it must change first), failed (it may succeed at another try), unreadable, locked, unexpected or
 *   unreachable
 */
export async function classify(url, file, tell) {
  try {
    await file.slice(0, 1).arrayBuffer();
  } catch {
    return { kind: "unreadable" }; // fetch would fail as it does without a network
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
      if (key !== getKey()) continue; // another was typed in meanwhile
      return { kind: "locked" };
    }
    if (response.ok && article) return { kind: "result", article, milliseconds };
    const seconds = Number(response.headers.get("Retry-After"));
    if (!seconds || attempt === MOST_TRIES) {
      if (!article) return { kind: "unexpected", said: `${response.status} ${response.statusText}` };
      const mustChange = response.status < 500 && response.status !== 408 && !seconds; // 408: it came too slowly
      return { kind: mustChange ? "refused" : "failed", article };
    }
    await wait(seconds, explain(response.status, article), tell);
  }
}

/** Gives the page as it would be made now, when another version serves; throws if it is not to be had. */
export async function fetchPage(url) {
  const response = await ask(url);
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  if (!page.querySelector("#model")) throw new Error(`no page of the service: ${response.status}`);
  return page;
}
