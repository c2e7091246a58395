// The whole page: which of its two views is shown, and to whom.

import { useEffect, useRef } from 'preact/hooks'
import { type View } from '../model/link.ts'
import { useLink, useTenant } from '../state.ts'
import { Operations } from './operations.tsx'
import { Profiles } from './profiles.tsx'

export function App() {
  const [link, navigate] = useLink()
  const [tenant, setTenant] = useTenant()
  useArrival(link.view)
  const props = { link, navigate, tenant, onTenant: setTenant }
  // Another tenant begins with nothing of the one before.
  return link.view === 'operations' ? <Operations key={tenant} {...props} /> : <Profiles {...props} />
}

/** useArrival names the view in the tab, and lets keyboard and screen reader go on in it when it has changed. */
function useArrival(view: View): void {
  const shown = useRef(view)
  useEffect(() => {
    document.title = view === 'operations' ? 'kiln · operations' : 'kiln'
    if (shown.current !== view) document.querySelector('main')?.focus({ preventScroll: true })
    shown.current = view
  }, [view])
}
