// What the daemon says, as it says it: server-sent events, and questions every few seconds where those are
// not to be had. Says honestly how old the latest word is.

import { getJson } from "./dom.js";

const ASK_EVERY_MS = 3000;
const TRY_AGAIN_MS = 10000;
/** The daemon speaks at least every 15 s. */
const STALE_AFTER_MS = 20000;

/**
 * Follows the daemon for good. `onLink` hears `{ state, heardAt }` each second; `onOpen` when the stream is
 * open, first or again: what came meanwhile may not be in it.
 */
export function follow({ onStatus, onDecision, onLink, onOpen }) {
  let events = null;
  let heardAt = null;
  let isPolling = false;
  let askTimer = 0;

  const heard = (status) => {
    heardAt = Date.now();
    onStatus(status);
    tell();
  };

  const tell = () => {
    const age = heardAt === null ? null : Date.now() - heardAt;
    const isOpen = events?.readyState === EventSource.OPEN;
    const isFresh = age !== null && age < (isPolling ? 3 * ASK_EVERY_MS : STALE_AFTER_MS);
    let state = "lost";
    if (heardAt === null && events?.readyState !== EventSource.CLOSED) state = "connecting";
    else if (isFresh && isOpen) state = "live";
    else if (isFresh && isPolling) state = "polling";
    else if (isFresh) state = "reconnecting";
    onLink({ state, heardAt });
  };

  const connect = () => {
    events = new EventSource("api/v1/events");
    events.addEventListener("open", () => onOpen());
    events.addEventListener("status", (event) => {
      isPolling = false;
      heard(JSON.parse(event.data));
    });
    events.addEventListener("decision", (event) => onDecision(JSON.parse(event.data)));
    events.addEventListener("error", () => {
      tell();
      if (events.readyState !== EventSource.CLOSED) return;
      // Refused for now: too many viewers, or something between that lets no stream through.
      isPolling = true;
      ask();
      setTimeout(connect, TRY_AGAIN_MS);
    });
  };

  const ask = async () => {
    clearTimeout(askTimer);
    if (!isPolling) return;
    try {
      heard(await getJson("api/v1/status"));
      onDecision(null);
    } catch {
      tell();
    }
    askTimer = setTimeout(ask, ASK_EVERY_MS);
  };

  connect();
  setInterval(tell, 1000);
}
