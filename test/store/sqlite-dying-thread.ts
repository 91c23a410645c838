/** A thread that opens and then breaks at the first request, for sqlite-file.test.ts. */
import { parentPort } from 'node:worker_threads';

parentPort?.on('message', (message: unknown) => {
  if (message !== 'close') throw new Error('broken on purpose');
});
parentPort?.postMessage([{ kind: 'opened' }]);
