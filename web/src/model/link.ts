// The page's state is its URL: a link shows what its sender saw, and the back button undoes.

import { parseSorts, printSorts, type Sorts } from './operations.ts'
import { DEFAULT_LAST, parseRange, type Range } from './range.ts'
import { type Column, type Order } from './top.ts'

export type View = 'profiles' | 'operations'

export interface Link {
  view: View
  service: string
  profileType: string
  labels: string
  range: Range
  /** Seconds between automatic refreshes; 0 is off. */
  refresh: number
  search: string
  /** The function picked in the table. */
  picked: string
  /** The zoomed frame, as flame.pathKey names it. */
  zoom: string
  order: Order
  /** The page of operations is not renewed. */
  paused: boolean
  /** The order of each table of operations. */
  sorts: Sorts
}

export const REFRESHES = [0, 10, 30, 60]
export const DEFAULT_ORDER: Order = { by: 'self', descending: true }

export function parseLink(search: string): Link {
  const params = new URLSearchParams(search)
  const refresh = Number(params.get('refresh') ?? 0)
  return {
    view: params.get('view') === 'operations' ? 'operations' : 'profiles',
    service: params.get('service') ?? '',
    profileType: params.get('type') ?? '',
    labels: params.get('labels') ?? '',
    range: parseRange(params.get('from'), params.get('until')),
    refresh: REFRESHES.includes(refresh) ? refresh : 0,
    search: params.get('search') ?? '',
    picked: params.get('function') ?? '',
    zoom: params.get('zoom') ?? '',
    order: parseOrder(params.get('sort')),
    paused: params.get('paused') === '1',
    sorts: parseSorts(params),
  }
}

/** printLink leaves out what is default, so that links stay short. */
export function printLink(link: Link): string {
  const params = new URLSearchParams()
  const put = (key: string, value: string) => {
    if (value !== '') params.set(key, value)
  }
  put('view', link.view === 'profiles' ? '' : link.view)
  put('service', link.service)
  put('type', link.profileType)
  put('labels', link.labels)
  if ('from' in link.range) {
    put('from', String(link.range.from))
    put('until', String(link.range.until))
  } else if (link.range.last !== DEFAULT_LAST) {
    put('from', `now-${link.range.last}`)
  }
  put('refresh', link.refresh === 0 ? '' : String(link.refresh))
  put('search', link.search)
  put('function', link.picked)
  put('zoom', link.zoom)
  put('sort', printOrder(link.order))
  put('paused', link.paused ? '1' : '')
  printSorts(link.sorts, put)
  const text = params.toString()
  return text === '' ? '' : `?${text}`
}

const COLUMNS: Column[] = ['name', 'self', 'total']

function parseOrder(text: string | null): Order {
  const by = COLUMNS.find((c) => c === text?.replace(/^-/, ''))
  return by === undefined ? DEFAULT_ORDER : { by, descending: text!.startsWith('-') }
}

function printOrder(order: Order): string {
  const same = order.by === DEFAULT_ORDER.by && order.descending === DEFAULT_ORDER.descending
  return same ? '' : `${order.descending ? '-' : ''}${order.by}`
}

/** dataKey changes exactly when the data of a link must be fetched again. */
export function dataKey(link: Link): string {
  return JSON.stringify([link.service, link.profileType, link.labels, link.range])
}
