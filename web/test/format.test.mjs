import assert from 'node:assert/strict'
import test from 'node:test'
import { axisTime, digits, formatAge, formatShare, formatSpan, formatValue, grouped, tickStep } from '../src/model/format.ts'

const table = (unit, cases) => {
  for (const [value, want] of cases) assert.equal(formatValue(value, unit), want, `${value} ${unit}`)
}

test('time', () => {
  table('nanoseconds', [
    [0, '0 ns'], [1, '1 ns'], [999, '999 ns'], [1_500, '1.50 µs'], [12_345_678, '12.3 ms'], [999_600_000, '1.00 s'], [8_110_000_000, '8.11 s'],
    [59_960_000_000, '1.00 min'], [569_400_000_000, '9.49 min'], [7_200e9, '2 h'], [3 * 86_400e9, '3 d'], [-1_500, '-1.50 µs'],
  ])
  table('milliseconds', [[1500, '1.50 s']])
})

test('bytes', () => {
  table('bytes', [[0, '0 B'], [512, '512 B'], [1024, '1 KiB'], [1_536, '1.50 KiB'], [5 * 2 ** 20, '5 MiB'], [3_456_789_012, '3.22 GiB'], [2 ** 51, '2 PiB']])
})

test('counts and units nobody knows', () => {
  table('count', [[0, '0'], [7, '7'], [1234, '1,234'], [999_999, '999,999'], [1_234_567, '1.23 M'], [2.5e9, '2.50 G']])
  table('objects', [[42, '42']])
  assert.equal(grouped(20000), '20,000')
  assert.equal(grouped(1234.5), '1,235')
})

test('shares never round to nothing or to all', () => {
  assert.equal(formatShare(0, 10), '0 %')
  assert.equal(formatShare(1, 0), '0 %')
  assert.equal(formatShare(1, 100_000), '< 0.01 %')
  assert.equal(formatShare(539, 10_000), '5.39 %')
  assert.equal(formatShare(1244, 10_000), '12.4 %')
  assert.equal(formatShare(10, 10), '100 %')
  assert.equal(formatShare(99_999_999, 100_000_000), '99.99 %')
})

test('spans', () => {
  assert.equal(formatSpan(3_600_000), '1 h')
  assert.equal(formatSpan(5_400_000), '1 h 30 min')
  assert.equal(formatSpan(90_061_000), '1 d 1 h')
  assert.equal(formatSpan(15_000), '15 s')
  assert.equal(formatSpan(200), '1 s')
})

test('ages are never rounded up', () => {
  assert.equal(formatAge(0), '< 1 s')
  assert.equal(formatAge(999), '< 1 s')
  assert.equal(formatAge(59_999), '59 s')
  assert.equal(formatAge(192_500), '3 min 12 s')
})

test('an axis has at most four ticks, round in what they read', () => {
  for (const unit of ['count', 'bytes', 'nanoseconds']) {
    for (const max of [0.3, 1, 7, 99, 4_096, 5e7, 3.4e9, 8e12]) {
      const n = max / tickStep(max, unit)
      assert.ok(n >= 1 && n <= 4.01, `${n} ticks up to ${max} ${unit}`)
    }
  }
  assert.equal(tickStep(60 * 2 ** 30, 'bytes'), 20 * 2 ** 30)
  assert.equal(tickStep(300e9, 'nanoseconds'), 2 * 60e9)
  assert.equal(tickStep(5.6, 'count'), 2)
})

test('ticks of the time axis', () => {
  const at = (text) => new Date(text).getTime() / 1000
  assert.equal(axisTime(at('2026-11-20T09:05:00'), 300), '09:05')
  assert.equal(axisTime(at('2026-11-20T09:05:30'), 30), '09:05:30')
  assert.equal(axisTime(at('2026-11-20T00:00:00'), 3600), '20 Nov')
  assert.equal(digits(0.001234), '0.0012')
})
