/** Takes a connection apart as libpq would: a URL, or a string of keywords. Nothing is looked up here. */
import { didYouMean } from "../config/spelling.ts";

/** How a connection parameter of libpq is treated. */
interface Parameter {
  readonly use: "honoured" | "ignored" | "refused";
  /** The variable that fills it in when the text leaves it out. */
  readonly variable?: string;
}

const honoured = (variable?: string): Parameter => ({ use: "honoured", ...(variable ? { variable } : {}) });
const ignored: Parameter = { use: "ignored" };
const refused: Parameter = { use: "refused" };

/**
 * Every parameter of libpq 18. Ignored are those that tune what this program decides itself; refused are those that
 * restrict whom or how to trust and could not be kept, because ignoring them would be less safe than was asked for.
 */
export const parameters: Readonly<Record<string, Parameter>> = {
  host: honoured("PGHOST"),
  hostaddr: honoured("PGHOSTADDR"),
  port: honoured("PGPORT"),
  dbname: honoured("PGDATABASE"),
  user: honoured("PGUSER"),
  password: honoured("PGPASSWORD"),
  passfile: honoured("PGPASSFILE"),
  service: honoured("PGSERVICE"),
  servicefile: honoured("PGSERVICEFILE"),
  connect_timeout: honoured("PGCONNECT_TIMEOUT"),
  options: honoured("PGOPTIONS"),
  channel_binding: honoured("PGCHANNELBINDING"),
  sslmode: honoured("PGSSLMODE"),
  sslrootcert: honoured("PGSSLROOTCERT"),
  sslcert: honoured("PGSSLCERT"),
  sslkey: honoured("PGSSLKEY"),
  sslpassword: honoured(),
  ssl_min_protocol_version: honoured("PGSSLMINPROTOCOLVERSION"),
  ssl_max_protocol_version: honoured("PGSSLMAXPROTOCOLVERSION"),
  application_name: ignored,
  fallback_application_name: ignored,
  client_encoding: ignored,
  keepalives: ignored,
  keepalives_idle: ignored,
  keepalives_interval: ignored,
  keepalives_count: ignored,
  tcp_user_timeout: ignored,
  target_session_attrs: ignored,
  load_balance_hosts: ignored,
  min_protocol_version: ignored,
  max_protocol_version: ignored,
  gssencmode: ignored,
  gsslib: ignored,
  gssdelegation: ignored,
  krbsrvname: ignored,
  sslcertmode: ignored,
  sslcompression: ignored,
  sslnegotiation: ignored,
  sslsni: ignored,
  sslkeylogfile: ignored,
  // Not libpq's: tells node-postgres to read sslmode as libpq does, which is always done here.
  uselibpqcompat: ignored,
  requirepeer: refused,
  require_auth: refused,
  sslcrl: refused,
  sslcrldir: refused,
  replication: refused,
  scram_client_key: refused,
  scram_server_key: refused,
  oauth_issuer: refused,
  oauth_client_id: refused,
  oauth_client_secret: refused,
  oauth_scope: refused,
};

export interface ConninfoText {
  /** By libpq's keyword, as written; empty values are left out, as libpq treats them as not given. */
  readonly values: Readonly<Record<string, string>>;
  /** What is wrong with the text. Never quotes a part of it that may belong to a password. */
  readonly problems: readonly string[];
}

/** How other programs write a connection: quoted, with a driver's name, for Java. It may hold a password anywhere. */
const looksLikeUrl = /^["'`<\s]*[a-z][\w+.-]*:(?:[a-z][\w+.-]*:)*\/\//i;

function whatBegins(text: string): string {
  if (/^["'`<]/.test(text)) return "the URL is in quotes: leave them out";
  const rule = "the URL has to begin with postgresql:// or postgres://";
  if (/^jdbc:/i.test(text)) return `${rule}: leave jdbc: out, and write user:password@ before the host`;
  return /^\w+\+/.test(text) ? `${rule}, without the name of a driver (+…)` : rule;
}

const encode =
  "in a user or password these are written in percent-encoding: @ as %40, / as %2F, ? as %3F, # as %23, : as %3A, % as %25";

/**
 * Parameters of other programs that are found in connections. None of them is needed here. They alone are shown: another
 * unknown word may be a piece of a password.
 */
const strange: ReadonlySet<string> = new Set([
  "schema", "pgbouncer", "connection_limit", "pool_timeout", "socket_timeout", "statement_cache_size", "sslaccept", "sslidentity",
  "currentSchema", "prepareThreshold", "binaryTransfer", "sslfactory", "ApplicationName", "loginTimeout", "connectTimeout",
  "socketTimeout", "tcpKeepAlive", "reWriteBatchedInserts", "targetServerType", "preferQueryMode", "stringtype", "charset", "encoding",
  "pool", "pool_size", "poolsize", "max_conns", "pool_max_conns", "pool_min_conns", "max_overflow", "prepared_statements",
  "preparedStatements", "prepare_threshold", "prepared_statement_cache_size", "statement_timeout", "lock_timeout",
  "idle_in_transaction_session_timeout", "idle_timeout", "max_lifetime", "timezone", "TimeZone", "search_path", "schema_search_path",
  "adapter", "reaping_frequency", "checkout_timeout", "ssl", "workaround", "supa", "sslmode_override", "default_query_exec_mode",
  "async_fallback", "sticky", "keepalive", "keepAlive", "max_connections", "min_connections", "conn_max_age", "serverVersion",
]); // prettier-ignore

/** Takes a URL or a keyword string apart. Never throws. */
export function parseConninfo(text: string): ConninfoText {
  const parser = new Parser();
  const scheme = /^postgres(?:ql)?:\/\//.exec(text)?.[0];
  if (scheme !== undefined) parser.url(text.slice(scheme.length));
  else if (looksLikeUrl.test(text)) parser.problems.push(whatBegins(text));
  else if (text.includes("=") || text === "") parser.keywords(text);
  else
    parser.problems.push("it is neither a URL (postgresql://…) nor a string of keywords (host=… dbname=…)");
  return parser;
}

/** Also for lists that come from several places. */
export const severalHosts =
  "several hosts are not supported: name the primary server alone, and leave target_session_attrs and load_balance_hosts out";

class Parser implements ConninfoText {
  readonly values: Record<string, string> = {};
  readonly problems: string[] = [];

  /** `user:password@host:port/dbname?keyword=value&…`, every part optional. */
  url(text: string): void {
    // A host holds neither of these, so a password may hold ":" and "@" as they are.
    const end = text.search(/[/?]/);
    const authority = end < 0 ? text : text.slice(0, end);
    const rest = end < 0 ? "" : text.slice(end);
    const at = authority.lastIndexOf("@");
    // With an "@" behind the first "/" or "?", what was read so far may be the first half of a password.
    const unsure = rest.includes("@") && at < 0;
    const question = rest.indexOf("?");
    const path = question < 0 ? rest : rest.slice(0, question);
    // Then what stands before the "/" would be taken for a host, and shown, and be the first half of a password.
    if (path.includes("@") || (at >= 0 && rest.includes("@"))) {
      this.problems.push(`the URL has an @ behind the host: ${encode}`);
      return;
    }
    if (at >= 0) {
      const login = authority.slice(0, at);
      const colon = login.indexOf(":");
      this.#setDecoded("user", colon < 0 ? login : login.slice(0, colon));
      if (colon >= 0) this.#setDecoded("password", login.slice(colon + 1));
    }
    if (!this.#hostAndPort(authority.slice(at + 1), unsure)) return;
    this.#setDecoded("dbname", path.slice(1));
    if (question >= 0) this.#query(rest.slice(question + 1), unsure);
  }

  /** Returns false where the URL makes no sense, so that what follows would only lead to more confusion. */
  #hostAndPort(text: string, unsure: boolean): boolean {
    const isList =
      text.split(",").length > 1 && text.split(",").every((each) => /^[^:]*(?::\d*)?$/.test(each));
    if (isList) {
      this.problems.push(severalHosts);
      return false;
    }
    const match = /^(\[[^\]]*\]|[^:]*)(?::(.*))?$/.exec(text);
    const [, host = "", port] = match ?? [];
    if (match === null || (port !== undefined && !/^[\d,]*$/.test(port))) {
      this.problems.push(
        unsure
          ? `the URL has an @ behind the host: ${encode}`
          : `the port of the URL is not a number (an IPv6 address goes into brackets; ${encode})`,
      );
      return false;
    }
    this.#setDecoded("host", host.startsWith("[") ? host.slice(1, -1) : host);
    this.set("port", port ?? "");
    return true;
  }

  #query(text: string, unsure: boolean): void {
    let isSecret = unsure;
    for (const pair of text.split("&")) {
      if (pair === "") continue;
      const equals = pair.indexOf("=");
      const key = this.#decode("query", equals < 0 ? pair : pair.slice(0, equals));
      if (key === undefined) continue;
      if (equals < 0) {
        this.problems.push(`the URL's query has a parameter without "="; & in a password is written as %26`);
      } else if (key === "ssl" && pair === "ssl=true") {
        // The JDBC driver's way of saying it, which libpq understands too.
        this.set("sslmode", "require");
      } else if (this.isKnown(key, isSecret)) {
        this.#setDecoded(key, pair.slice(equals + 1));
      }
      // A raw & in a password makes a parameter of its rest.
      isSecret ||= /pass/i.test(key) || !Object.hasOwn(parameters, key);
    }
  }

  #decode(part: string, text: string): string | undefined {
    try {
      return decodeURIComponent(text);
    } catch {
      const where = part === "query" ? "a parameter name" : `the ${part}`;
      this.problems.push(
        `${where} of the URL holds a % that is not part of a percent-encoded character: write it as %25`,
      );
      return undefined;
    }
  }

  #setDecoded(key: string, text: string): void {
    const value = this.#decode(key, text);
    if (value !== undefined) this.set(key, value);
  }

  /** `keyword = value …`, values in single quotes where they hold spaces; a backslash takes the next character as it is. */
  keywords(text: string): void {
    const pairs =
      /\s*(?:([^\s=]+)\s*(?:=\s*(?:'((?:[^'\\]|\\[^])*)'|(?!')((?:[^\s\\]|\\[^])*))(?=\s|$))?|$)/y;
    let hasPassword = false;
    while (pairs.lastIndex < text.length) {
      const match = pairs.exec(text);
      const [whole = "", key, quoted, plain] = match ?? [];
      const value = quoted ?? plain;
      if (match !== null && key === undefined && whole.trim() === "") return;
      if (key === undefined || value === undefined) {
        this.problems.push(
          /=\s*'/.test(text)
            ? "the keyword string has a value whose quotes do not fit: write ' inside of quotes as \\', and \\ as \\\\"
            : `the keyword string has a word without "=": put values with spaces into single quotes`,
        );
        return;
      }
      if (this.isKnown(key, hasPassword)) this.set(key, value.replaceAll(/\\([^])/g, "$1"));
      hasPassword ||= /pass/i.test(key) || !Object.hasOwn(parameters, key);
    }
  }

  /** `isSecret`: the key may be a piece of a password and must not be shown. */
  isKnown(key: string, isSecret: boolean): boolean {
    const parameter = Object.hasOwn(parameters, key) ? parameters[key] : undefined;
    if (parameter === undefined) {
      const isWord = /^[a-z]\w{0,40}$/i.test(key);
      if (strange.has(key)) this.problems.push(`the parameter ${key} is of another program: leave it out`);
      else if (isSecret || !isWord) this.problems.push("a parameter is unknown");
      else this.problems.push(`the parameter "${key}" is unknown${didYouMean(key, Object.keys(parameters))}`);
    } else if (parameter.use === "refused") {
      this.problems.push(`the parameter ${key} is not supported`);
    }
    return parameter?.use === "honoured";
  }

  set(key: string, value: string): void {
    if (value.includes("\0")) this.problems.push(`${key} holds a zero byte`);
    else if (value !== "") this.values[key] = value;
  }
}
