/**
 * Who may see the console and who may act in it: passwords, sessions, attempts, and where requests come from. A page of
 * somebody else, open in the same browser, can neither read nor do anything.
 */
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import type { Role } from "./protocol.ts";

export interface Passwords {
  readonly operator: string | undefined;
  readonly viewer: string | undefined;
}

interface Session {
  readonly role: Role;
  readonly csrf: string;
  readonly until: number;
}

const sessionMs = 12 * 3_600_000;
const mostSessions = 1000;
/** Wrong passwords within a minute, from one address and from all. */
const mostAttempts = { address: 5, all: 60 };
const attemptMs = 60_000;

export const cookieName = "replicate_session";

export class Access {
  readonly #passwords: Passwords;
  readonly #sessions = new Map<string, Session>();
  readonly #failures: { readonly at: number; readonly address: string }[] = [];
  /** Of those who need no password. */
  readonly #openCsrf = token();
  readonly #openRole: Role;
  readonly #now: () => number;

  /** `openRole`: what everybody may do where no password is set. */
  constructor(passwords: Passwords, openRole: Role, now: () => number = Date.now) {
    this.#passwords = passwords;
    this.#openRole = openRole;
    this.#now = now;
  }

  get isPasswordSet(): boolean {
    return this.#passwords.operator !== undefined || this.#passwords.viewer !== undefined;
  }

  /** The session of a cookie; undefined: the password has to be given. */
  sessionOf(cookie: string | undefined): { readonly role: Role; readonly csrf: string } | undefined {
    if (!this.isPasswordSet) return { role: this.#openRole, csrf: this.#openCsrf };
    const session = cookie === undefined ? undefined : this.#sessions.get(digest(cookie));
    return session !== undefined && session.until > this.#now() ? session : undefined;
  }

  /** Begins a session, whose cookie is returned. Null: wrong; a number: too many were wrong, seconds to wait. */
  logIn(password: string, address: string): { readonly cookie: string; readonly role: Role } | null | number {
    const now = this.#now();
    while ((this.#failures[0]?.at ?? now) < now - attemptMs) this.#failures.shift();
    const ofAddress = this.#failures.filter((each) => each.address === address);
    if (ofAddress.length >= mostAttempts.address || this.#failures.length >= mostAttempts.all) {
      const oldest = (ofAddress.length >= mostAttempts.address ? ofAddress : this.#failures)[0];
      return Math.max(1, Math.ceil(((oldest?.at ?? now) + attemptMs - now) / 1000));
    }
    const role = this.roleOf(password);
    if (role === undefined) {
      this.#failures.push({ at: now, address });
      return null;
    }
    for (const [key, session] of this.#sessions) if (session.until <= now) this.#sessions.delete(key);
    const [first] = this.#sessions.keys();
    if (this.#sessions.size >= mostSessions && first !== undefined) this.#sessions.delete(first);
    const cookie = token();
    this.#sessions.set(digest(cookie), { role, csrf: token(), until: now + sessionMs });
    return { cookie, role };
  }

  logOut(cookie: string | undefined): void {
    if (cookie !== undefined) this.#sessions.delete(digest(cookie));
  }

  /** Whom a password belongs to, compared in constant time. */
  roleOf(password: string): Role | undefined {
    const isOperator = isSame(password, this.#passwords.operator);
    const isViewer = isSame(password, this.#passwords.viewer);
    if (isOperator) return "operator";
    return isViewer ? "viewer" : undefined;
  }

  isCsrf(session: { readonly csrf: string }, given: string | undefined): boolean {
    return isSame(given ?? "", session.csrf);
  }
}

/**
 * Whether a request was meant for this server: where anybody who reaches it may read, a name that somebody else's DNS leads
 * here must not do. `listen`: the address that is listened on.
 */
export function isHostFit(host: string | undefined, isLoopbackOnly: boolean): boolean {
  if (!isLoopbackOnly) return host !== undefined;
  const name = hostName(host ?? "");
  return name === "localhost" || name === "::1" || /^127(\.\d{1,3}){3}$/.test(name);
}

/** Whether a request that changes something comes from this console's own page. */
export function isOriginFit(origin: string | undefined, host: string | undefined): boolean {
  if (origin === undefined) return true;
  try {
    return host !== undefined && new URL(origin).host === host;
  } catch {
    return false;
  }
}

function hostName(host: string): string {
  const bracketed = /^\[([^\]]+)\]/.exec(host);
  return (bracketed?.[1] ?? host.replace(/:\d+$/, "")).toLowerCase();
}

export function isLoopback(host: string): boolean {
  return isHostFit(host.includes(":") && !host.startsWith("[") ? `[${host}]` : host, true);
}

const token = (): string => randomBytes(32).toString("base64url");

const digest = (text: string): string => createHash("sha256").update(text).digest("base64");

function isSame(given: string, expected: string | undefined): boolean {
  const [a, b] = [given, expected ?? token()].map((text) => createHash("sha256").update(text).digest());
  return timingSafeEqual(a as Buffer, b as Buffer) && expected !== undefined;
}
