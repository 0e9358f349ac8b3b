/** The whole page: one sync at a time, chosen at the top where there are several. */
import { useState } from "preact/hooks";
import { post, useLive } from "./connection.ts";
import { SyncPage } from "./sync-page.tsx";

export function App() {
  const [{ snapshot, state }, retry] = useLive();
  const [chosen, setChosen] = useState<string | null>(null);
  if (state === "login") return <Login done={retry} />;
  if (snapshot === null)
    return (
      <main>
        <p role="status">{state === "lost" ? "The server does not answer." : "Loading…"}</p>
      </main>
    );
  const view = snapshot.syncs.find(({ name }) => name === chosen) ?? snapshot.syncs[0];
  return (
    <>
      <header class="top">
        <h1>replicate</h1>
        {snapshot.syncs.length > 1 && (
          <nav aria-label="Syncs">
            {snapshot.syncs.map(({ name, status }) => (
              <button
                key={name}
                type="button"
                class={`tab phase-${status?.phase ?? "unknown"}`}
                aria-current={name === view?.name ? "page" : undefined}
                onClick={() => setChosen(name)}
              >
                {name}
              </button>
            ))}
          </nav>
        )}
        <span class="spread" />
        <span role="status" class={`live ${state}`}>
          {state === "live" ? "up to date" : "the server does not answer; trying again"}
        </span>
        {snapshot.isPasswordSet && (
          <button
            type="button"
            onClick={() => {
              void post("/api/logout", {}).then(() => location.reload());
            }}
          >
            Sign out
          </button>
        )}
      </header>
      <main>
        {view === undefined ? <p>There is no sync.</p> : <SyncPage view={view} csrf={snapshot.csrf} />}
      </main>
      <footer>
        replicate {snapshot.version}
        {snapshot.csrf === null && " · this page only shows"}
      </footer>
    </>
  );
}

function Login({ done }: { done: () => void }) {
  const [problem, setProblem] = useState<string | null>(null);
  return (
    <main class="login">
      <h1>replicate</h1>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          const password = new FormData(event.currentTarget as HTMLFormElement).get("password");
          void post("/api/login", { password }).then((wrong) => {
            setProblem(wrong);
            if (wrong === null) done();
          });
        }}
      >
        <label>
          Password
          <input name="password" type="password" autocomplete="current-password" required />
        </label>
        <button type="submit" class="primary">
          Sign in
        </button>
        {problem !== null && <p role="alert">{problem}</p>}
      </form>
    </main>
  );
}
