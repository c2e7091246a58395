// The canvas of the flame graph: what is drawn where. Knows frames and pixels, but no component.

import { fill, INK, shortName, type Scheme } from '../model/colour.ts'
import { formatShare } from '../model/format.ts'
import { depth, firstEndingAfter, frameAt, nameOf, type Flame } from '../model/flame.ts'

export const ROW = 20
const GLIDE_MS = 140
const TEXT_PAD = 5
const SHARE_CHARS = 12
const MIN_TEXT = 24 // px: room for two letters and an ellipsis

/** What the stage shows. Marks are per name: 1 stays coloured, 0 steps back; null leaves all coloured. */
export interface Scene {
  flame: Flame
  scheme: Scheme
  zoom: number
  highlight: Uint8Array | null
}

/** The visible part: values left to right, and the level at the top. Fractions occur while it glides. */
interface View {
  left: number
  right: number
  level: number
}

interface Theme {
  faded: string
  fadedInk: string
  ink: string
  strongInk: string
  crumbs: string
  font: string
}

/** Run is a row of frames too narrow to tell apart, in pixels. It takes the colour of the first match in it. */
interface Run {
  from: number
  to: number
  fill: string
}

export class Stage {
  private readonly canvas: HTMLCanvasElement
  private readonly context: CanvasRenderingContext2D
  private scene: Scene | null = null
  private fills: string[] = []
  private marks: string[] = []
  private labels: string[] = []
  private theme: Theme | null = null
  private view: View = { left: 0, right: 1, level: 0 }
  private glide: { from: View; since: number } | null = null
  private scroll = 0
  private ratio = 1
  private charWidth = 0
  private requested = 0
  private marked = -1

  constructor(canvas: HTMLCanvasElement) {
    this.canvas = canvas
    this.context = canvas.getContext('2d')!
  }

  /** show replaces the scene; a new zoom in the same graph glides there. */
  show(scene: Scene, smooth: boolean): void {
    const was = this.scene
    this.scene = scene
    if (was?.flame !== scene.flame || was.scheme !== scene.scheme) {
      this.fills = scene.flame.names.map((name) => fill(name, scene.scheme))
      this.marks = scene.flame.names.map((name) => fill(name, scene.scheme, true))
      this.labels = scene.flame.names.map(shortName)
      this.theme = readTheme(this.canvas, scene.scheme)
      this.marked = -1
    }
    if (was?.flame === scene.flame && was.zoom !== scene.zoom && smooth) {
      this.glide = { from: this.view, since: performance.now() }
    } else if (was?.flame !== scene.flame || was.zoom !== scene.zoom) {
      this.glide = null
      this.view = this.target()
    }
    this.request()
  }

  /** mark outlines one frame, or none with -1. */
  mark(frame: number): void {
    if (frame === this.marked) return
    this.marked = frame
    this.request()
  }

  resize(width: number, height: number): void {
    this.ratio = devicePixelRatio
    this.canvas.width = Math.round(width * this.ratio)
    this.canvas.height = Math.round(height * this.ratio)
    this.canvas.style.width = `${width}px`
    this.canvas.style.height = `${height}px`
    this.charWidth = 0
    this.paint() // at once: a canvas that changed its size is empty
  }

  scrollTo(top: number): void {
    this.scroll = top
    this.request()
  }

  dispose(): void {
    cancelAnimationFrame(this.requested)
  }

  /** hit finds the frame at a point of the canvas, or -1. */
  hit(x: number, y: number): number {
    const { flame } = this.scene!
    const { left, right, level } = this.target()
    const at = left + (x / this.canvas.clientWidth) * (right - left)
    return frameAt(flame, level + Math.floor((y + this.scroll) / ROW), at)
  }

  /** locate gives the visible part of a frame in canvas pixels: where it will be once nothing glides, or in a given view. */
  locate(frame: number, { left, right, level } = this.target()): { x: number; y: number; width: number } {
    const { flame } = this.scene!
    const scale = this.canvas.clientWidth / (right - left)
    const x = Math.max(0, (flame.start[frame]! - left) * scale)
    const end = Math.min(this.canvas.clientWidth, (flame.start[frame]! + flame.total[frame]! - left) * scale)
    return { x, y: (flame.level[frame]! - level) * ROW - this.scroll, width: end - x }
  }

  private target(): View {
    const { flame, zoom } = this.scene!
    return { left: flame.start[zoom]!, right: flame.start[zoom]! + flame.total[zoom]!, level: flame.level[zoom]! }
  }

  private request(): void {
    if (this.requested !== 0) return
    this.requested = requestAnimationFrame(() => {
      this.requested = 0
      this.paint()
    })
  }

  private advance(): void {
    if (this.glide === null) return
    const to = this.target()
    const t = Math.min(1, (performance.now() - this.glide.since) / GLIDE_MS)
    const ease = 1 - (1 - t) ** 3
    const { from } = this.glide
    const between = (a: number, b: number) => a + (b - a) * ease
    this.view = t === 1 ? to : { left: between(from.left, to.left), right: between(from.right, to.right), level: between(from.level, to.level) }
    if (t === 1) this.glide = null
    else this.request()
  }

  private paint(): void {
    if (this.scene === null || this.theme === null) return
    const { clientWidth, clientHeight } = this.canvas
    if (devicePixelRatio !== this.ratio) return this.resize(clientWidth, clientHeight) // now on another screen
    this.advance()
    const { flame } = this.scene
    const ctx = this.context
    ctx.setTransform(this.ratio, 0, 0, this.ratio, 0, 0)
    ctx.clearRect(0, 0, clientWidth, clientHeight)
    ctx.font = this.theme.font
    ctx.textBaseline = 'middle'
    if (this.charWidth === 0) this.charWidth = ctx.measureText('0'.repeat(100)).width / 100

    const first = Math.max(0, Math.floor(this.view.level + this.scroll / ROW))
    const last = Math.min(depth(flame), Math.ceil(this.view.level + (this.scroll + clientHeight) / ROW))
    for (let level = first; level < last; level++) this.paintLevel(level)
    if (this.marked >= 0) this.paintMark()
  }

  /** paintLevel draws the frames of a level; runs of frames too narrow to see become one. */
  private paintLevel(level: number): void {
    const { flame, highlight } = this.scene!
    const { left, right } = this.view
    const width = this.canvas.clientWidth
    const scale = width / (right - left)
    const y = (level - this.view.level) * ROW - this.scroll
    const end = flame.levels[level + 1]!
    let run: Run = { from: 0, to: -1, fill: '' }

    for (let f = firstEndingAfter(flame, level, left); f < end && flame.start[f]! < right; f++) {
      const x = (flame.start[f]! - left) * scale
      const x1 = x + flame.total[f]! * scale
      const on = highlight === null || (f > 0 && highlight[flame.name[f]!] === 1)
      if (x1 - x >= 1.5) {
        this.paintFrame(f, Math.max(0, x), Math.min(width, x1), y, on)
        continue
      }
      if (x - run.to > 0.5) {
        this.paintRun(run, y)
        run = { from: x, to: x1, fill: '' }
      }
      run.to = x1
      if (on && highlight !== null) run.fill ||= this.marks[flame.name[f]!]!
    }
    this.paintRun(run, y)
  }

  private paintRun(run: Run, y: number): void {
    if (run.to < run.from) return
    const theme = this.theme!
    this.context.fillStyle = run.fill || (this.scene!.highlight === null ? theme.crumbs : theme.faded)
    this.context.fillRect(run.from, y, Math.max(0.75, run.to - run.from - 0.5), ROW - 1)
  }

  private paintFrame(f: number, x: number, x1: number, y: number, on: boolean): void {
    const { flame, highlight } = this.scene!
    const theme = this.theme!
    const ctx = this.context
    const fills = highlight === null ? this.fills : this.marks
    const gap = x1 - x > 3 ? 1 : 0.5
    ctx.fillStyle = f === 0 ? theme.crumbs : on ? fills[flame.name[f]!]! : theme.faded
    ctx.fillRect(x, y, x1 - x - gap, ROW - 1)
    if (x1 - x < MIN_TEXT) return
    const text = this.fit(f, x1 - x - 2 * TEXT_PAD)
    if (text === '') return
    ctx.fillStyle = f === 0 ? theme.strongInk : on ? theme.ink : theme.fadedInk
    ctx.fillText(text, x + TEXT_PAD, y + ROW / 2)
    this.paintShare(f, x + TEXT_PAD + this.textWidth(text), x1 - TEXT_PAD, y)
  }

  /** paintShare writes a frame's share of all behind its name, where there is room. */
  private paintShare(f: number, x: number, x1: number, y: number): void {
    const { flame } = this.scene!
    if (f === 0 || x1 - x < SHARE_CHARS * this.charWidth) return
    this.context.globalAlpha = 0.68
    this.context.fillText(formatShare(flame.total[f]!, flame.total[0]!), x + 2 * this.charWidth, y + ROW / 2)
    this.context.globalAlpha = 1
  }

  /** fit gives as much of a frame's name as fits: all of it, without its directories, or its beginning. */
  private fit(f: number, width: number): string {
    const full = nameOf(this.scene!.flame, f)
    const room = Math.floor(width / this.charWidth)
    if (this.textWidth(full) <= width) return full
    const label = this.labels[this.scene!.flame.name[f]!]!
    if (this.textWidth(label) <= width) return label
    if (room < 3) return ''
    let cut = label.slice(0, room - 1)
    while (cut !== '' && this.textWidth(cut) + this.charWidth > width) cut = cut.slice(0, -1)
    return cut === '' ? '' : `${cut}…`
  }

  /** textWidth multiplies where it can: the font is monospaced, and measuring is the dearest part of drawing. */
  private textWidth(text: string): number {
    return /^[\x20-\x7e]*$/.test(text) ? text.length * this.charWidth : this.context.measureText(text).width
  }

  private paintMark(): void {
    const { x, y, width } = this.locate(this.marked, this.view)
    this.context.strokeStyle = this.theme!.strongInk
    this.context.lineWidth = 1.5
    this.context.strokeRect(x + 0.75, y + 0.75, Math.max(1, width - 2.5), ROW - 2.5)
  }
}

function readTheme(canvas: HTMLCanvasElement, scheme: Scheme): Theme {
  const style = getComputedStyle(canvas)
  const value = (name: string) => style.getPropertyValue(name).trim()
  return {
    faded: value('--faded'),
    fadedInk: value('--faded-ink'),
    ink: INK[scheme],
    strongInk: value('--ink'),
    crumbs: value('--crumbs'),
    font: `11px ${value('--mono')}`,
  }
}
