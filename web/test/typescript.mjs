// Lets node's own test runner import the page's TypeScript: node --import ./test/typescript.mjs --test ...
import { readFile } from 'node:fs/promises'
import { register } from 'node:module'
import { isMainThread } from 'node:worker_threads'
import { transformWithOxc } from 'vite'

if (isMainThread) register(import.meta.url)

export async function load(url, context, next) {
  if (!url.endsWith('.ts')) return next(url, context)
  const path = new URL(url)
  const { code } = await transformWithOxc(await readFile(path, 'utf8'), path.pathname)
  return { format: 'module', source: code, shortCircuit: true }
}
