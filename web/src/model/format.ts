// Values as people read them: three significant digits and the unit that fits.

interface Scale {
  from: number
  unit: string
}

// Largest first: the first scale that the value reaches is taken.
const TIME: Scale[] = [
  { from: 86_400e9, unit: 'd' },
  { from: 3_600e9, unit: 'h' },
  { from: 60e9, unit: 'min' },
  { from: 1e9, unit: 's' },
  { from: 1e6, unit: 'ms' },
  { from: 1e3, unit: 'µs' },
  { from: 1, unit: 'ns' },
]
const BYTES: Scale[] = [
  { from: 2 ** 50, unit: 'PiB' },
  { from: 2 ** 40, unit: 'TiB' },
  { from: 2 ** 30, unit: 'GiB' },
  { from: 2 ** 20, unit: 'MiB' },
  { from: 2 ** 10, unit: 'KiB' },
  { from: 1, unit: 'B' },
]
const COUNT: Scale[] = [
  { from: 1e12, unit: 'T' },
  { from: 1e9, unit: 'G' },
  { from: 1e6, unit: 'M' },
]

const NANOSECONDS: Record<string, number> = { nanoseconds: 1, microseconds: 1e3, milliseconds: 1e6, seconds: 1e9 }

/** formatValue prints a value of a profile's sample unit; unknown units count things. */
export function formatValue(value: number, unit: string): string {
  const factor = NANOSECONDS[unit]
  if (factor !== undefined) return scaled(value * factor, TIME)
  if (unit === 'bytes') return scaled(value, BYTES)
  return scaled(value, COUNT)
}

/** tickStep chooses the distance between ticks of an axis from 0 to max: at most four, round in the unit they read. */
export function tickStep(max: number, unit: string): number {
  const scales = unit === 'bytes' ? BYTES : unit in NANOSECONDS ? TIME : []
  const factor = NANOSECONDS[unit] ?? 1
  const least = (max * factor) / 4
  const scale = scales.find((s) => least >= s.from)?.from ?? 1
  const magnitude = 10 ** Math.floor(Math.log10(least / scale))
  const step = [1, 2, 2.5, 5, 10].find((s) => s * magnitude * scale >= least * 0.999) ?? 10
  return (step * magnitude * scale) / factor
}

function scaled(value: number, scales: Scale[]): string {
  const size = Math.abs(value)
  const smallest = scales[scales.length - 1]!
  if (scales === COUNT && size < smallest.from) return grouped(value)
  if (value === 0) return `0 ${smallest.unit}`
  let at = scales.findIndex((s) => size >= s.from)
  if (at < 0) at = scales.length - 1
  // 999.6 ms reads 1000 ms: what rounds up to the next unit is printed in it.
  if (at > 0 && Number((size / scales[at]!.from).toPrecision(3)) * scales[at]!.from >= scales[at - 1]!.from) at--
  return `${digits(value / scales[at]!.from)} ${scales[at]!.unit}`
}

/** digits prints three significant digits, and whole numbers whole. */
export function digits(value: number): string {
  const size = Math.abs(value)
  if (size >= 100 || Number.isInteger(value)) return String(Math.round(value))
  return size >= 10 ? value.toFixed(1) : size >= 0.01 || size === 0 ? value.toFixed(2) : value.toPrecision(2)
}

/** grouped prints a count exactly, in groups of three: 20,000. */
export function grouped(value: number): string {
  const [whole, rest] = (Number.isInteger(value) ? String(value) : digits(value)).split('.')
  const groups = whole!.replace(/\B(?=(\d{3})+$)/g, ',')
  return rest === undefined ? groups : `${groups}.${rest}`
}

/** formatShare prints part of whole as a percentage. */
export function formatShare(part: number, whole: number): string {
  if (part === 0 || whole === 0) return '0 %'
  const percent = (100 * part) / whole
  if (percent < 0.01) return '< 0.01 %'
  if (part === whole) return '100 %'
  return `${Math.min(percent, 99.99).toFixed(percent < 10 || percent > 99.9 ? 2 : 1)} %`
}

const pad = (n: number) => String(n).padStart(2, '0')
const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec']

export function formatClock(ms: number, seconds = true): string {
  const d = new Date(ms)
  return `${pad(d.getHours())}:${pad(d.getMinutes())}${seconds ? `:${pad(d.getSeconds())}` : ''}`
}

export function formatDay(ms: number): string {
  const d = new Date(ms)
  return `${d.getDate()} ${MONTHS[d.getMonth()]}`
}

/** formatSpan prints a range's length in one or two units: 1 h 30 min. */
export function formatSpan(ms: number): string {
  let seconds = Math.max(1, Math.round(ms / 1000))
  const parts: string[] = []
  for (const [unit, size] of [['d', 86400], ['h', 3600], ['min', 60], ['s', 1]] as const) {
    const n = Math.floor(seconds / size)
    if (n > 0) parts.push(`${n} ${unit}`)
    seconds -= n * size
  }
  return parts.slice(0, 2).join(' ')
}

/** formatAge prints how long ago something was: 3 min 12 s. */
export function formatAge(ms: number): string {
  return ms < 1000 ? '< 1 s' : formatSpan(Math.floor(ms / 1000) * 1000)
}

/** axisTime labels a tick of a time axis whose ticks are `increment` seconds apart. */
export function axisTime(seconds: number, increment: number): string {
  const ms = seconds * 1000
  const d = new Date(ms)
  if (increment >= 86400 || (d.getHours() === 0 && d.getMinutes() === 0 && d.getSeconds() === 0)) return formatDay(ms)
  return formatClock(ms, increment < 60)
}
