/** The page's line to the server: what it shows, kept up to date, and what it asks for. */
import { useEffect, useState } from "preact/hooks";
import { applyPatch, type Snapshot, type SyncPatch } from "../protocol.ts";

export interface Live {
  readonly snapshot: Snapshot | null;
  /** `login`: the password is needed. `lost`: the server does not answer; it is asked again and again. */
  readonly state: "connecting" | "live" | "lost" | "login";
}

/** Follows the server for as long as the page is open. */
export function useLive(): [Live, () => void] {
  const [live, setLive] = useState<Live>({ snapshot: null, state: "connecting" });
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const source = new EventSource("/api/stream");
    source.addEventListener("snapshot", (event) => {
      setLive({ snapshot: JSON.parse((event as MessageEvent<string>).data) as Snapshot, state: "live" });
    });
    source.addEventListener("patch", (event) => {
      const patch = JSON.parse((event as MessageEvent<string>).data) as SyncPatch;
      setLive((before) =>
        before.snapshot === null
          ? before
          : {
              ...before,
              snapshot: {
                ...before.snapshot,
                syncs: before.snapshot.syncs.map((view) =>
                  view.name === patch.name ? applyPatch(view, patch) : view,
                ),
              },
            },
      );
    });
    source.addEventListener("error", () => {
      source.close();
      // The reason is not told to an EventSource: whether the password is missing has to be asked.
      void needsPassword().then((needed) => {
        setLive((before) => ({ ...before, state: needed ? "login" : "lost" }));
        if (!needed) timer = setTimeout(() => setTurn((n) => n + 1), 2000);
      });
    });
    return () => {
      source.close();
      clearTimeout(timer);
    };
  }, [turn]);
  return [live, () => setTurn((n) => n + 1)];
}

async function needsPassword(): Promise<boolean> {
  try {
    return (await fetch("/api/state")).status === 401;
  } catch {
    return false;
  }
}

/** Sends something that changes; returns what went wrong, in words, or null. */
export async function post(path: string, body: object, csrf: string | null = null): Promise<string | null> {
  try {
    const response = await fetch(path, {
      method: "POST",
      headers: { "content-type": "application/json", ...(csrf === null ? {} : { "x-csrf-token": csrf }) },
      body: JSON.stringify(body),
    });
    if (response.ok) return null;
    const { message, hint } = (await response.json()) as { message?: string; hint?: string };
    return [message ?? `the server answered ${response.status}`, hint].filter(Boolean).join(" ");
  } catch {
    return "the server does not answer";
  }
}
