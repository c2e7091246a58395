// The flame graph: the canvas with its keyboard, its mouse, its tooltip and the way back up.

import { useLayoutEffect, useRef, useState } from 'preact/hooks'
import { shortName, type Scheme } from '../model/colour.ts'
import { depth, nameOf, path, type Flame } from '../model/flame.ts'
import { formatShare, formatValue } from '../model/format.ts'
import { useMedia } from '../state.ts'
import { ROW, Stage } from './stage.ts'

interface Props {
  flame: Flame
  unit: string
  scheme: Scheme
  zoom: number
  highlight: Uint8Array | null
  onZoom: (frame: number) => void
}

/** Where the pointer or the keyboard is: a frame, and the point of the window beside which it is explained. */
interface Spot {
  flame: Flame
  frame: number
  x: number
  y: number
  /** Pointed at with the mouse: then it is gone as soon as something else scrolls below the mouse. */
  mouse: boolean
}

export function FlameGraph(props: Props) {
  const { flame, zoom, scheme, highlight, onZoom } = props
  const canvas = useRef<HTMLCanvasElement>(null)
  const scroller = useRef<HTMLDivElement>(null)
  const stage = useStage(canvas, scroller)
  const [last, setSpot] = useState<Spot | null>(null)
  const spot = last?.flame === flame ? last : null
  const smooth = !useMedia('(prefers-reduced-motion: reduce)')

  useLayoutEffect(() => {
    stage.current!.show({ flame, zoom, scheme, highlight }, smooth)
  }, [flame, zoom, scheme, highlight])
  useLayoutEffect(() => {
    scroller.current!.scrollTop = 0
    setSpot(null)
  }, [flame, zoom])
  useLayoutEffect(() => stage.current!.mark(spot?.frame ?? -1), [spot])

  const frameUnder = (e: MouseEvent) => {
    const box = canvas.current!.getBoundingClientRect()
    return stage.current!.hit(e.clientX - box.left, e.clientY - box.top)
  }
  const point = (e: MouseEvent) => {
    const frame = frameUnder(e)
    setSpot(frame < 0 ? null : { flame, frame, x: e.clientX, y: e.clientY, mouse: true })
  }
  const click = (e: MouseEvent) => {
    const frame = frameUnder(e)
    if (frame >= 0) onZoom(frame === zoom && frame > 0 ? flame.parent[frame]! : frame)
  }
  const key = (e: KeyboardEvent) => {
    const from = spot?.frame ?? zoom
    if (e.key === 'Enter') onZoom(from)
    else {
      const to = step(flame, zoom, from, spot === null ? 'Home' : e.key)
      if (to < 0 || !(e.key.startsWith('Arrow') || e.key === 'Home')) return
      const at = reveal(stage.current!, canvas.current!, scroller.current!, to)
      setSpot({ flame, frame: to, ...at, mouse: false })
    }
    e.preventDefault()
  }

  const rows = depth(flame) - flame.level[zoom]!
  return (
    <section class="panel flame" aria-label="Flame graph">
      <Breadcrumb {...props} />
      <div class="scroll" ref={scroller} data-testid="flame-scroll" onScroll={() => setSpot((s) => (s?.mouse ? null : s))}>
        <div class="sizer" style={{ height: `${rows * ROW}px` }}>
          <canvas
            ref={canvas}
            tabIndex={0}
            role="application"
            aria-label="Flame graph. Arrow keys move between frames, Enter zooms, Escape resets. The table of functions holds the same numbers."
            data-testid="flame"
            data-row-height={ROW}
            onMouseMove={point}
            onMouseLeave={() => setSpot(null)}
            onClick={click}
            onKeyDown={key}
            onBlur={() => setSpot(null)}
          />
        </div>
      </div>
      <Tooltip {...props} spot={spot} />
    </section>
  )
}

/** useStage keeps the canvas as large as the visible part of its scroller: a deep graph needs no huge bitmap. */
function useStage(canvas: { current: HTMLCanvasElement | null }, scroller: { current: HTMLDivElement | null }) {
  const stage = useRef<Stage | null>(null)
  useLayoutEffect(() => {
    const box = scroller.current!
    const own = (stage.current = new Stage(canvas.current!))
    const resize = () => own.resize(box.clientWidth, box.clientHeight)
    const scroll = () => own.scrollTo(box.scrollTop)
    resize()
    const resized = new ResizeObserver(resize)
    resized.observe(box)
    box.addEventListener('scroll', scroll, { passive: true })
    return () => {
      resized.disconnect()
      box.removeEventListener('scroll', scroll)
      own.dispose()
    }
  }, [])
  return stage
}

/** step finds where a key leads from a frame, staying inside of the zoomed part; -1 is nowhere. */
function step(flame: Flame, zoom: number, from: number, key: string): number {
  const inside = (f: number) => {
    const level = flame.level[f] === flame.level[from] && f >= 0 && f < flame.count
    return level && flame.start[f]! >= flame.start[zoom]! && flame.start[f]! < flame.start[zoom]! + flame.total[zoom]!
  }
  switch (key) {
    case 'Home':
      return zoom
    case 'ArrowUp':
      return from === zoom ? -1 : flame.parent[from]!
    case 'ArrowDown': {
      let widest = flame.firstChild[from]!
      for (let i = 1; i < flame.children[from]!; i++) {
        const f = flame.firstChild[from]! + i
        if (flame.total[f]! > flame.total[widest]!) widest = f
      }
      return widest
    }
    case 'ArrowLeft':
      return inside(from - 1) ? from - 1 : -1
    case 'ArrowRight':
      return inside(from + 1) ? from + 1 : -1
    default:
      return -1
  }
}

/** reveal scrolls a frame into sight and gives the place for its tooltip: just below it. */
function reveal(stage: Stage, canvas: HTMLCanvasElement, scroller: HTMLElement, frame: number): { x: number; y: number } {
  const { y } = stage.locate(frame)
  if (y < 0) scroller.scrollTop += y
  else if (y + ROW > scroller.clientHeight) scroller.scrollTop += y + ROW - scroller.clientHeight
  stage.scrollTo(scroller.scrollTop)
  const at = stage.locate(frame)
  const box = canvas.getBoundingClientRect()
  return { x: box.left + at.x + Math.min(at.width / 2, 120), y: box.top + at.y + ROW }
}

function Breadcrumb({ flame, zoom, onZoom }: Props) {
  const frames = path(flame, zoom)
  const shown = frames.length > 5 ? [frames[0]!, -1, ...frames.slice(-3)] : frames
  return (
    <nav class="crumbs" aria-label="Zoom" data-testid="breadcrumb" data-root={nameOf(flame, zoom)}>
      <ol>
        {shown.map((f) =>
          f < 0 ? (
            <li key="more" class="more" title={frames.slice(1, -3).map((f) => nameOf(flame, f)).join('\n')}>
              … {frames.length - 4} more
            </li>
          ) : (
            <li key={f}>
              {f === zoom ? (
                <span aria-current="true" title={nameOf(flame, f)}>
                  {shortName(nameOf(flame, f))}
                </span>
              ) : (
                <button type="button" title={nameOf(flame, f)} onClick={() => onZoom(f)}>
                  {shortName(nameOf(flame, f))}
                </button>
              )}
            </li>
          ),
        )}
      </ol>
      {zoom > 0 ? (
        <button type="button" class="reset" onClick={() => onZoom(0)} data-testid="reset-zoom">
          Reset zoom <kbd>Esc</kbd>
        </button>
      ) : (
        <span class="hint">click to zoom</span>
      )}
    </nav>
  )
}

function Tooltip({ flame, unit, zoom, spot }: Props & { spot: Spot | null }) {
  const box = useRef<HTMLDivElement>(null)
  useLayoutEffect(() => {
    if (spot === null) return
    const { offsetWidth, offsetHeight } = box.current!
    const x = Math.max(8, Math.min(spot.x + 14, innerWidth - offsetWidth - 8))
    const below = spot.y + 18 + offsetHeight < innerHeight
    box.current!.style.transform = `translate(${Math.round(x)}px, ${Math.round(below ? spot.y + 18 : spot.y - 10 - offsetHeight)}px)`
  }, [spot])
  if (spot === null) return <div class="tooltip" role="status" ref={box} hidden data-testid="tooltip" />

  const total = flame.total[spot.frame]!
  const self = flame.self[spot.frame]!
  const all = flame.total[0]!
  return (
    <div class="tooltip" role="status" ref={box} data-testid="tooltip" data-frame={spot.frame}>
      <b data-testid="tooltip-name">{nameOf(flame, spot.frame)}</b>
      <dl>
        <dt>Total</dt>
        <dd data-testid="tooltip-total" data-value={total}>
          {formatValue(total, unit)}
        </dd>
        <dd>{formatShare(total, all)}</dd>
        <dt>Self</dt>
        <dd data-testid="tooltip-self" data-value={self}>
          {formatValue(self, unit)}
        </dd>
        <dd>{formatShare(self, all)}</dd>
      </dl>
      {zoom > 0 && <p>{formatShare(total, flame.total[zoom]!)} of the zoomed frame</p>}
    </div>
  )
}
