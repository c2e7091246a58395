// The view of operations: the cluster, compaction and deletions, as they are now.

import { type ComponentChildren } from 'preact'
import { useCallback, useState } from 'preact/hooks'
import { CLUSTER_SERVICE, DELETION_SERVICE, JOB_SERVICE } from '../api.ts'
import { formatClock, formatSpan } from '../model/format.ts'
import { askCluster, askCompaction, askDeletions, EVERY, useWatched, type Watched } from '../watch.ts'
import { Bar, RefreshButton, type ViewProps } from './bar.tsx'
import { ClusterFacts, ClusterTables } from './clustertables.tsx'
import { CompactionFacts, CompactionTables } from './compactiontables.tsx'
import { DeletionFacts, DeletionTable } from './deletiontable.tsx'
import { TenantPrompt } from './messages.tsx'

export function Operations(props: ViewProps) {
  const { link, navigate, tenant, onTenant } = props
  const { paused } = link
  const [round, setRound] = useState(0)
  const refresh = useCallback(() => setRound((n) => n + 1), [])
  const cluster = useWatched(askCluster, tenant, paused, round)
  const compaction = useWatched(askCompaction, tenant, paused, round)
  const deletions = useWatched(askDeletions, tenant, paused, round)
  const all = [cluster, compaction, deletions]
  const loading = all.some((w) => w.loading)
  const refused = all.find((w) => w.error?.status === 401)?.error

  const answerTenant = (id: string) => {
    onTenant(id)
    refresh() // also when it is the one that was just refused
  }

  return (
    <>
      <Bar {...props} loading={loading}>
        <Watching
          asOf={Math.max(...all.map((w) => w.answer?.asOf ?? 0))}
          paused={paused}
          loading={loading}
          onRefresh={refresh}
          onPause={() => navigate({ paused: !paused }, 'replace')}
        />
      </Bar>
      <main class="operations" tabIndex={-1} aria-busy={loading} data-testid="main">
        {refused ? (
          <TenantPrompt tenant={tenant} error={refused} onTenant={answerTenant} />
        ) : (
          <>
            <Section
              name="cluster"
              title="Cluster"
              service={CLUSTER_SERVICE}
              hint={<>With tenants, <code>--rpc</code> alone does.</>}
              watched={cluster}
              facts={(found) => <ClusterFacts cluster={found} />}
            >
              {(found) => <ClusterTables cluster={found} link={link} navigate={navigate} />}
            </Section>
            <Section
              name="compaction"
              title="Compaction"
              service={JOB_SERVICE}
              watched={compaction}
              facts={(found) => <CompactionFacts compaction={found} />}
            >
              {(found) => <CompactionTables compaction={found} link={link} navigate={navigate} />}
            </Section>
            <Section
              name="deletions"
              title="Deletions"
              service={DELETION_SERVICE}
              watched={deletions}
              facts={(found) => <DeletionFacts deletions={found} />}
            >
              {(found) => <DeletionTable deletions={found} link={link} navigate={navigate} />}
            </Section>
          </>
        )}
      </main>
    </>
  )
}

/** Watching says of when the answers are, and lets them be held still. */
function Watching(props: { asOf: number; paused: boolean; loading: boolean; onRefresh: () => void; onPause: () => void }) {
  const { asOf, paused, loading, onRefresh, onPause } = props
  return (
    <div class="watching">
      <p>
        {paused ? 'Paused' : `Every ${formatSpan(EVERY)}`}
        {asOf > 0 && (
          <>
            {' '}
            · as of <span data-testid="as-of" data-value={asOf}>{formatClock(asOf)}</span>
          </>
        )}
      </p>
      <span class="field refresh">
        <RefreshButton loading={loading} onRefresh={onRefresh} />
        <button type="button" title={paused ? 'Go on' : 'Pause'} aria-label="Pause" aria-pressed={paused} onClick={onPause} data-testid="pause">
          <svg viewBox="0 0 16 16" aria-hidden="true">
            <path d={paused ? 'M5 3v10l8-5z' : 'M5.500 3.500v9M10.500 3.500v9'} />
          </svg>
        </button>
      </span>
    </div>
  )
}

interface SectionProps<T> {
  name: string
  title: string
  service: string
  hint?: ComponentChildren
  watched: Watched<T>
  facts: (found: T) => ComponentChildren
  children: (found: T) => ComponentChildren
}

function Section<T>({ name, title, service, hint, watched, facts, children }: SectionProps<T>) {
  const { answer, error, loading } = watched
  const heading = `${name}-heading`
  return (
    <section aria-labelledby={heading} data-testid={`section-${name}`}>
      <div class="about">
        <h2 id={heading}>{title}</h2>
        {answer !== null && !error?.notServed && <p>{facts(answer.body)}</p>}
      </div>
      {error?.notServed ? (
        <p class="panel nothing" role="status" data-testid={`absent-${name}`}>
          This server does not serve <code>{service}</code>. {hint}
        </p>
      ) : (
        <>
          {error !== null && (
            <p class="panel fault" role="status" data-testid={`fault-${name}`}>
              <code class="error-code">{error.code}</code> {error.message}
              {answer !== null && <span class="hint"> What is shown is as of {formatClock(answer.asOf)}.</span>}
            </p>
          )}
          {answer !== null && children(answer.body)}
          {answer === null && error === null && loading && <p class="panel nothing">Loading…</p>}
        </>
      )}
    </section>
  )
}
