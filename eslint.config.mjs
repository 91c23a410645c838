// What the types cannot say. Vocabulary and shape are for the reviewer; imports and sizes for test/architecture.test.ts.
import tseslint from 'typescript-eslint';

/** Time and chance come from src/clock.ts, settings from src/config.ts; everything else has them injected. */
const timeAndChance = [
  { name: 'setTimeout', message: 'Use the injected Clock.' },
  { name: 'setInterval', message: 'Use the injected Clock.' },
  { name: 'setImmediate', message: 'Use the injected Clock.' },
  { name: 'performance', message: 'Use the injected Clock.' },
];
const timeAndChanceSyntax = [
  { selector: "NewExpression[callee.name='Date'][arguments.length=0]", message: 'Use the injected Clock.' },
  { selector: "MemberExpression[object.name='Date'][property.name='now']", message: 'Use the injected Clock.' },
  { selector: "MemberExpression[object.name='Math'][property.name='random']", message: 'Use the injected Random.' },
  { selector: "MemberExpression[object.name='AbortSignal'][property.name='timeout']", message: 'Use the injected Clock.' },
];
const environmentSyntax = [{ selector: "MemberExpression[object.name='process'][property.name='env']", message: 'Only config.ts reads the environment.' }];
const assertedTwice = { selector: 'TSAsExpression > TSAsExpression > TSUnknownKeyword', message: 'Parse instead of asserting twice.' };
const exit = { selector: "CallExpression[callee.object.name='process'][callee.property.name='exit']", message: 'Set process.exitCode and let everything end.' };
const sourceSyntax = [assertedTwice, exit];

export default tseslint.config(
  { ignores: ['gen/', 'node_modules/', 'setup/node/', 'setup/stubs/', '.cache/', 'data/', 'coverage/'] },
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.strictTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    linterOptions: { reportUnusedDisableDirectives: 'error' },
    rules: {
      eqeqeq: 'error',
      'no-console': 'error',
      'prefer-const': 'error',
      'no-restricted-syntax': ['error', assertedTwice],
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/explicit-module-boundary-types': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_', caughtErrorsIgnorePattern: '^_', destructuredArrayIgnorePattern: '^_' }],
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true, allowBoolean: true }],
      '@typescript-eslint/no-unnecessary-condition': ['error', { allowConstantLoopConditions: 'only-allowed-literals' }],
      // `return resolve();` says "and no more of this", which is what it means.
      '@typescript-eslint/no-confusing-void-expression': 'off',
      // `void | Promise<void>` is what a callback that may be asynchronous returns.
      '@typescript-eslint/no-invalid-void-type': 'off',
      // Implementations of asynchronous interfaces need not wait for anything.
      '@typescript-eslint/require-await': 'off',
    },
  },
  {
    files: ['src/**/*.ts'],
    rules: {
      'no-restricted-globals': ['error', ...timeAndChance],
      'no-restricted-syntax': ['error', ...sourceSyntax, ...timeAndChanceSyntax, ...environmentSyntax],
    },
  },
  {
    files: ['src/clock.ts'],
    rules: { 'no-restricted-globals': 'off', 'no-restricted-syntax': ['error', ...sourceSyntax, ...environmentSyntax] },
  },
  { files: ['src/config.ts'], rules: { 'no-restricted-syntax': ['error', ...sourceSyntax, ...timeAndChanceSyntax] } },
  {
    // node:test gives back promises that the runner itself awaits.
    files: ['test/**/*.ts', 'test-e2e/**/*.ts', 'bench/**/*.ts', 'examples/**/*.ts'],
    rules: {
      'no-console': 'off',
      '@typescript-eslint/no-floating-promises': [
        'error',
        { allowForKnownSafeCalls: [{ from: 'package', package: 'node:test', name: ['test', 'it', 'suite', 'describe', 'before', 'after', 'beforeEach', 'afterEach'] }] },
      ],
      '@typescript-eslint/explicit-module-boundary-types': 'off',
      '@typescript-eslint/unbound-method': 'off',
      // Tests parse what was written to look at it; `any` in an annotation stays forbidden.
      '@typescript-eslint/no-unsafe-assignment': 'off',
      '@typescript-eslint/no-unsafe-member-access': 'off',
      '@typescript-eslint/no-unsafe-return': 'off',
      '@typescript-eslint/no-unsafe-argument': 'off',
      // Status codes are compared as the numbers that travel.
      '@typescript-eslint/no-unsafe-enum-comparison': 'off',
      // A test states what the types promise, and looks at what an assertion narrowed.
      '@typescript-eslint/no-unnecessary-condition': 'off',
    },
  },
);
