import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts', 'examples/**/*.test.ts'],
    // CI wants the numbers as well.
    reporters: process.env['VITEST_RESULTS'] === undefined ? ['default'] : ['default', 'json'],
    ...(process.env['VITEST_RESULTS'] !== undefined && { outputFile: { json: process.env['VITEST_RESULTS'] } }),
    testTimeout: 30_000,
    hookTimeout: 30_000,
    // Two cores are what CI has; more workers only make real sockets and files slower.
    maxWorkers: 2,
  },
});
