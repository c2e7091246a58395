import { defineConfig } from 'vite'

const kiln = process.env.KILN_URL ?? 'http://127.0.0.1:4040'

export default defineConfig({
  base: './', // the page also works below a path prefix of a proxy
  build: {
    target: 'es2022',
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: { host: '127.0.0.1', proxy: { '^/(querier|kiln)\\.[\\w.]+Service/': kiln } },
})
