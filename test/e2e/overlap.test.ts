import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AppserviceAdmin } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import { startService } from '../support/service-world.ts';

const { putRegistration, listRegistrations } = AppserviceAdmin.method;

function yaml(id: string, regex: string): string {
  return `id: ${id}\nurl: null\nas_token: as-${id}-long-enough\nhs_token: hs-${id}-long-enough\nsender_localpart: ${id}\nrate_limited: false\nnamespaces:\n  users:\n    - regex: "${regex}"\n      exclusive: true\n`;
}

test('PutRegistration warns of an overlap with what is in force, also when it only looks', async () => {
  await using world = await startService();
  const codes = async (id: string, regex: string, validateOnly: boolean): Promise<string[]> => {
    const { warnings } = await world.admin.call(putRegistration, { source: { case: 'yaml', value: yaml(id, regex) }, validateOnly });
    return warnings.map(({ code, message }) => `${code} ${/both match "([^"]*)"/.exec(message)?.[1] ?? ''}`.trim());
  };
  assert.deepEqual(await codes('one', '@irc_.*:hs\\\\.test', false), []);
  assert.deepEqual(await codes('two', '@irc_b.*:hs\\\\.test', true), ['EXCLUSIVE_OVERLAP @irc_b:hs.test']);
  assert.equal((await world.admin.call(listRegistrations, {})).registrations.length, 1);
  assert.deepEqual(await codes('two', '@(one|xmpp_.*):hs\\\\.test', false), ['SENDER_CLAIMED']);
  assert.deepEqual(await codes('two', '@xmpp_.*:hs\\\\.test', false), []);
});
