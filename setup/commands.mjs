// The commands of package.json, and what each runs once all is prepared.
import { join } from 'node:path';
import { prepare, root } from './prepare.mjs';
import { become } from './processes.mjs';
import { SetupError, say } from './progress.mjs';

const packageFile = (...parts) => join(root, 'node_modules', ...parts);
const sourceFile = (...parts) => join(root, ...parts);
const router = ['--disable-warning=ExperimentalWarning', sourceFile('src', 'main.ts')];

/** Per command: the arguments for Node, given those of the user. */
const commands = {
  start: (args) => [...router, ...(args.length === 0 ? ['serve'] : args)],
  demo: (args) => ['--disable-warning=ExperimentalWarning', sourceFile('examples', 'demo', 'main.ts'), ...args],
  example: (args) => ['--disable-warning=ExperimentalWarning', sourceFile('examples', 'typescript', 'main.ts'), ...args],
  test: (args) => [sourceFile('test', 'support', 'run-tests.ts'), ...args],
  'test:e2e': (args) => ['--disable-warning=ExperimentalWarning', sourceFile('test-e2e', 'support', 'run-tests.ts'), ...args],
  bench: (args) => ['--disable-warning=ExperimentalWarning', ...(args[0] === 'vs-synapse' ? [sourceFile('bench', 'vs-synapse', 'main.ts'), ...args.slice(1)] : [sourceFile('bench', 'bench.ts'), ...args])],
  sim: (args) => ['--disable-warning=ExperimentalWarning', sourceFile('test', 'simulation', 'main.ts'), ...args],
  crash: (args) => ['--disable-warning=ExperimentalWarning', sourceFile('test', 'crash', 'main.ts'), ...args],
  soak: (args) => ['--disable-warning=ExperimentalWarning', sourceFile('test', 'crash', 'soak.ts'), ...args],
  lint: (args) => [packageFile('eslint', 'bin', 'eslint.js'), ...(args.length === 0 ? ['.'] : args)],
  types: (args) => [packageFile('typescript', 'bin', 'tsc'), '-p', root, ...args],
  generate: (args) => [packageFile('@bufbuild', 'buf', 'bin', 'buf'), 'generate', ...args],
  check: (args) => [sourceFile('setup', 'check.mjs'), ...args],
};
/** The router itself needs no development packages. */
const withoutDev = ['start'];

/** Prepares what is missing, then runs the command in the Node of the project. Resolves with the exit code. */
export async function runCommand(command, args) {
  if (command === 'start' && args[0] === 'demo') return runCommand('demo', args.slice(1));
  const argumentsOf = commands[command];
  if (argumentsOf === undefined) {
    say(`There is no command ${JSON.stringify(command ?? '')}. Use one of: ${Object.keys(commands).join(', ')}.`);
    return 2;
  }
  try {
    const node = await prepare({ dev: !withoutDev.includes(command) });
    return await become(node.path, argumentsOf(args), { env: node.env });
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    say(`\n${error.message}`);
    return 1;
  }
}
