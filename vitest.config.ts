import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts', 'examples/**/*.test.ts'],
    // CI wants the numbers as well.
    reporters: process.env['VITEST_RESULTS'] === undefined ? ['default'] : ['default', 'json'],
    ...(process.env['VITEST_RESULTS'] !== undefined && { outputFile: { json: process.env['VITEST_RESULTS'] } }),
    // Only what hangs is to fail of it: a machine that does other things as well takes several times as long.
    testTimeout: 120_000,
    hookTimeout: 120_000,
    // Two cores are what CI has; more workers only make real sockets and files slower.
    maxWorkers: 2,
  },
});
