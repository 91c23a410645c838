// The scripts of package.json, on a machine that has only some Node, npm, a C++ compiler and Python.
// Plain JavaScript without dependencies, for Node 18 and newer.
import { runCommand } from './commands.mjs';

process.exitCode = await runCommand(process.argv[2], process.argv.slice(3));
