// The bar at the top of both views: the name, the way to the other view, what the view puts there, the tenant.

import { type ComponentChildren } from 'preact'
import { printLink, type Link } from '../model/link.ts'
import { type Navigate } from '../state.ts'

/** ViewProps is what every view is given. */
export interface ViewProps {
  link: Link
  navigate: Navigate
  tenant: string
  onTenant: (tenant: string) => void
}

export function Bar(props: ViewProps & { loading: boolean; children: ComponentChildren }) {
  const { tenant, onTenant, loading } = props
  return (
    <header>
      <h1>
        <Mark />
        kiln
      </h1>
      <OtherView {...props} />
      {props.children}
      {tenant !== '' && (
        <button type="button" class="chip" title="Forget this tenant" onClick={() => onTenant('')} data-testid="tenant-chip">
          {tenant} <span aria-hidden="true">×</span>
        </button>
      )}
      <div class="progress" role="progressbar" aria-label="Loading" hidden={!loading} />
    </header>
  )
}

/** OtherView leads to the other view and back; everything else in the link stays. */
function OtherView({ link, navigate }: ViewProps) {
  const view = link.view === 'profiles' ? 'operations' : 'profiles'
  const follow = (e: MouseEvent) => {
    if (e.button !== 0 || e.metaKey || e.ctrlKey || e.shiftKey || e.altKey) return // a tab or a window of its own
    e.preventDefault()
    navigate({ view })
  }
  return (
    <a class="view" href={location.pathname + printLink({ ...link, view })} onClick={follow} data-testid="other-view">
      {view === 'operations' ? 'Operations' : 'Profiles'}
    </a>
  )
}

export function RefreshButton({ loading, onRefresh }: { loading: boolean; onRefresh: () => void }) {
  return (
    <button type="button" title="Refresh" aria-label="Refresh" onClick={onRefresh} data-testid="refresh">
      <svg class={loading ? 'spin' : ''} viewBox="0 0 16 16" aria-hidden="true">
        <path d="M13.500 8a5.500 5.500 0 1 1-1.600-3.900M13.500 1.500v3h-3" />
      </svg>
    </button>
  )
}

function Mark() {
  return (
    <svg class="mark" viewBox="0 0 24 24" aria-hidden="true">
      <path class="arch" d="M3 22V12a9 9 0 0 1 18 0v10h-5v-6.200c0-2.300-1.600-3.200-2.200-5.800-2.600 1.400-5.800 3.300-5.800 6.400V22z" />
      <path class="fire" d="M10.300 22v-3.700c0-1.700 1.200-2.500 2-3.800.9 1.300 1.500 2.100 1.500 3.800V22z" />
    </svg>
  )
}
