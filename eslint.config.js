import rxjs from 'eslint-plugin-rxjs-x';
import { defineConfig } from 'eslint/config';
import tseslint from 'typescript-eslint';

/** Time and chance come in by ports, so that simulation can own them (src/core/clock.ts is the one exception). */
const impure = [
  { object: 'Date', property: 'now', message: 'Use context.clock.now().' },
  { object: 'Math', property: 'random', message: 'Use context.random().' },
];

export default defineConfig(
  { ignores: ['dist', 'node_modules', 'coverage', 'bench/.cache'] },
  tseslint.configs.strictTypeChecked,
  rxjs.configs.recommended,
  {
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true, allowBoolean: true }],
      '@typescript-eslint/no-confusing-void-expression': 'off',
      '@typescript-eslint/no-unnecessary-type-parameters': 'off',
      '@typescript-eslint/prefer-promise-reject-errors': 'off',
      '@typescript-eslint/no-invalid-void-type': 'off',
      // RxJS deprecates `new Subscriber()` for users; an operator library has no other way to see unsubscribe().
      '@typescript-eslint/no-deprecated': [
        'error',
        { allow: [{ from: 'package', package: 'rxjs', name: ['super', 'Subscriber'] }] },
      ],
      '@typescript-eslint/no-unsafe-class-instance-assignment': 'off',
    },
  },
  {
    files: ['src/core/**', 'src/operators/**', 'src/log/**', 'src/testing/**'],
    rules: { 'no-restricted-properties': ['error', ...impure] },
  },
  {
    files: ['test/**', 'bench/**', 'examples/**'],
    rules: {
      // Matchers such as expect.stringContaining() are any.
      '@typescript-eslint/no-unsafe-assignment': 'off',
      '@typescript-eslint/no-non-null-assertion': 'off',
      '@typescript-eslint/require-await': 'off',
    },
  },
  {
    files: ['**/*.js'],
    extends: [tseslint.configs.disableTypeChecked],
    rules: Object.fromEntries(Object.keys(rxjs.configs.recommended.rules ?? {}).map(rule => [rule, 'off'])),
  },
);
