/** What can be done now. What cannot be taken back asks for the sync's name first. */
import { useRef, useState } from "preact/hooks";
import { actions, type ActionName } from "../action-list.ts";
import type { SyncView } from "../protocol.ts";
import { post } from "./connection.ts";

export function Actions({ view, csrf }: { view: SyncView; csrf: string }) {
  const [asked, setAsked] = useState<ActionName | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  const { job } = view;
  const run = (action: ActionName): void => {
    setAsked(null);
    void post(`/api/syncs/${encodeURIComponent(view.name)}/actions/${action}`, {}, csrf).then(setProblem);
  };
  return (
    <section class="panel" aria-labelledby="actions">
      <h2 id="actions">Actions</h2>
      <div class="buttons">
        {(Object.keys(actions) as ActionName[])
          .filter((action) => view.actions.includes(action))
          .map((action) => (
            <button
              key={action}
              type="button"
              class={actions[action].confirm === "name" ? "danger" : undefined}
              title={actions[action].help}
              onClick={() => (actions[action].confirm === "no" ? run(action) : setAsked(action))}
            >
              {actions[action].label}
            </button>
          ))}
      </div>
      {job !== null && (
        <p role="status">
          {actions[job.action as ActionName]?.label ?? job.action}, by {job.by}:{" "}
          {job.endedAt === null ? "under way" : job.error === null ? (job.result ?? "done") : "failed"}
        </p>
      )}
      {job?.error != null && (
        <div role="alert" class="bad">
          <strong>{job.error.code}</strong>: {job.error.message}
          {job.error.hint !== "" && <pre class="hint">{job.error.hint}</pre>}
        </div>
      )}
      {problem !== null && <p role="alert">{problem}</p>}
      {asked !== null && (
        <Confirm view={view} action={asked} yes={() => run(asked)} no={() => setAsked(null)} />
      )}
    </section>
  );
}

interface ConfirmProps {
  view: SyncView;
  action: ActionName;
  yes: () => void;
  no: () => void;
}

function Confirm({ view, action, yes, no }: ConfirmProps) {
  const [name, setName] = useState("");
  const shown = useRef(false);
  const { label, help, confirm } = actions[action];
  const needsRehearsal = action === "cutover" || action === "rollback";
  return (
    <dialog
      class="confirm"
      aria-labelledby="confirm"
      ref={(dialog) => {
        if (dialog !== null && !shown.current) {
          shown.current = true;
          dialog.showModal();
        }
      }}
      onCancel={no}
    >
      <h3 id="confirm">{label}?</h3>
      <p>{help}</p>
      {needsRehearsal &&
        (view.rehearsed === null ? (
          <p class="hint">
            Rehearse first, to see whether it is ready and how long applications cannot write.
          </p>
        ) : (
          <p>
            Rehearsed: {view.rehearsed.rehearsal.blockers.length} blocking,{" "}
            {view.rehearsed.rehearsal.warnings.length} warnings, about{" "}
            {view.rehearsed.rehearsal.fenceSeconds.toFixed(1)} s without writes.
          </p>
        ))}
      {confirm === "name" && (
        <label>
          Type the name of the sync, <code>{view.name}</code>
          <input value={name} onInput={(event) => setName(event.currentTarget.value)} autocomplete="off" />
        </label>
      )}
      <div class="buttons">
        <button type="button" onClick={no}>
          Cancel
        </button>
        <button
          type="button"
          class="danger"
          disabled={confirm === "name" && name !== view.name}
          onClick={yes}
        >
          {label}
        </button>
      </div>
    </dialog>
  );
}
