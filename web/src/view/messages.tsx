// What stands in place of results when there are none.

import { type ComponentChildren } from 'preact'
import { useState } from 'preact/hooks'
import { type ApiError } from '../api.ts'
import { formatClock, formatDay } from '../model/format.ts'
import { type Link } from '../model/link.ts'
import { resolve } from '../model/range.ts'
import { type Navigate } from '../state.ts'

function Message(props: { title: string; testid: string; alert?: boolean; children: ComponentChildren }) {
  return (
    <section class={props.alert ? 'message alert' : 'message'} role={props.alert ? 'alert' : 'status'} data-testid={props.testid}>
      <h2>{props.title}</h2>
      {props.children}
    </section>
  )
}

export function Loading() {
  return (
    <Message title="Loading…" testid="loading">
      <p>Asking kiln for this range.</p>
    </Message>
  )
}

export function Empty({ link, navigate }: { link: Link; navigate: Navigate }) {
  const { start, end } = resolve(link.range, Date.now())
  const moment = (ms: number) => `${formatDay(ms)} ${new Date(ms).getFullYear()}, ${formatClock(ms)}`
  return (
    <Message title="No data in this range" testid="empty">
      <p>
        Nothing {link.service !== '' && <>of <b>{link.service}</b> </>}was recorded between <b>{moment(start)}</b> and <b>{moment(end)}</b>
        {link.labels !== '' && (
          <>
            {' '}
            with <code>{link.labels}</code>
          </>
        )}
        .
      </p>
      <p>Push something with kiln’s own command:</p>
      <pre>kiln push cpu.pb.gz --service {/^[\w.-]+$/.test(link.service) ? link.service : 'checkout'}</pre>
      <p class="actions">
        <button type="button" onClick={() => navigate({ range: { last: '24h' } })}>
          Show the last 24 hours
        </button>
        {link.labels !== '' && (
          <button type="button" onClick={() => navigate({ labels: '' })}>
            Clear the labels
          </button>
        )}
      </p>
    </Message>
  )
}

export function Failure({ error, onRetry }: { error: ApiError; onRetry: () => void }) {
  return (
    <Message title="kiln could not answer" testid="error" alert>
      <p>
        <code class="error-code" data-testid="error-code">
          {error.code}
        </code>
      </p>
      <pre data-testid="error-message">{error.message}</pre>
      <p class="actions">
        <button type="button" onClick={onRetry}>
          Try again
        </button>
      </p>
    </Message>
  )
}

const TENANT_ID = '(?!\\.{1,2}$)[A-Za-z0-9_.\\-]{1,150}'

export function TenantPrompt(props: { tenant: string; error: ApiError; onTenant: (tenant: string) => void }) {
  const [draft, setDraft] = useState(props.tenant)
  return (
    <Message title="Which tenant?" testid="tenant-prompt">
      <p>This kiln serves several tenants and asks who is looking.</p>
      <form
        class="actions"
        onSubmit={(e) => {
          e.preventDefault()
          props.onTenant(draft)
        }}
      >
        <label class="field">
          <span>Tenant id</span>
          <input
            class="code"
            required
            pattern={TENANT_ID}
            title="Up to 150 letters, digits, dots, dashes and underscores"
            spellcheck={false}
            autocomplete="off"
            value={draft}
            data-testid="tenant"
            onInput={(e) => setDraft(e.currentTarget.value)}
          />
        </label>
        <button type="submit" class="primary">
          Continue
        </button>
      </form>
      <p class="note">
        <code>{props.error.code}</code> {props.error.message}
      </p>
    </Message>
  )
}
