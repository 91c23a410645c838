import assert from 'node:assert/strict';
import { mkdir, rename, symlink, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { registrationDisk } from '../../src/registration/registration-disk.ts';
import type { RegistrationFilesOptions } from '../../src/registration/registration-files.ts';
import { registrationFromYaml } from '../../src/registration/registration-yaml.ts';
import { StoreError } from '../../src/store/errors.ts';
import { newDirectory, world, yaml } from './files-world.ts';
import { RULES } from './rules.ts';

test('files found at the start are put, and a second start with the same files puts nothing', async () => {
  await using one = await world({ 'b.yml': yaml('xmpp'), 'a.yaml': yaml('irc'), 'note.txt': 'x', '.hidden.yaml': 'x: [', 'c.yaml~': '[' });
  assert.deepEqual(one.target.takeCalls(), ['put irc', 'put xmpp']);
  assert.deepEqual(one.files.problems(), []);
  await one.files.settled();
  await one.restart();
  assert.deepEqual(one.target.takeCalls(), []);
});

test('R20 a changed file is put again, the others are not', async () => {
  await using one = await world({ 'a.yaml': yaml('irc'), 'b.yaml': yaml('xmpp') });
  one.target.takeCalls();
  await one.write('a.yaml', yaml('irc').replace('127.0.0.1:9000', '127.0.0.1:9001'));
  await one.files.settled();
  assert.deepEqual(one.target.takeCalls(), ['put irc']);
  assert.equal(one.target.inForce.get('irc')?.registration.url, 'http://127.0.0.1:9001');
});

test('a look at the files judges those alone that changed', async () => {
  const judged: string[] = [];
  const read: RegistrationFilesOptions['read'] = (text) => {
    judged.push(/^id: (.*)/m.exec(text)?.[1] ?? '');
    return registrationFromYaml(text, RULES);
  };
  await using one = await world({ 'a.yaml': yaml('irc'), 'b.yaml': yaml('xmpp') }, { read });
  await one.write('b.yaml', yaml('xmpp', 'as-secret-new'));
  await one.files.settled();
  assert.deepEqual(judged, ['irc', 'xmpp', 'xmpp']);
});

test('a file of which only comments changed is not put', async () => {
  await using one = await world({ 'a.yaml': yaml('irc') });
  one.target.takeCalls();
  await one.write('a.yaml', `# a comment\n${yaml('irc')}`);
  await one.files.settled();
  assert.deepEqual(one.target.takeCalls(), []);
});

test('R11 R18 a bad file changes nothing, is reported with file, line and field, and acts once it is mended', async () => {
  await using one = await world({ 'a.yaml': yaml('irc'), 'b.yaml': yaml('xmpp') });
  one.target.takeCalls();
  await one.write('a.yaml', yaml('irc').replace("'@irc_.*", "'@irc_(?=x).*"));
  await one.files.settled();
  assert.deepEqual(one.target.takeCalls(), []);
  const [problem, ...more] = one.files.problems();
  assert.deepEqual(more, []);
  assert.deepEqual([problem?.file, problem?.line, problem?.field], [join(one.directory, 'a.yaml'), 10, 'namespaces.users[0].regex']);
  await one.write('a.yaml', 'id: [');
  await one.files.settled();
  assert.deepEqual(one.target.takeCalls(), [], 'the id cannot be read; what the file was about before stays');
  await one.write('a.yaml', yaml('irc', 'as-secret-new-token'));
  await one.files.settled();
  assert.deepEqual(one.target.takeCalls(), ['put irc']);
  assert.deepEqual(one.files.problems(), []);
  assert.ok(!/as-secret|hs-secret/.test(one.log.join('\n')));
});

test('a bad file that goes back to what it was is no change', async () => {
  await using one = await world({ 'a.yaml': yaml('irc') });
  one.target.takeCalls();
  await one.write('a.yaml', 'id: [');
  await one.files.settled();
  await one.write('a.yaml', yaml('irc'));
  await one.files.settled();
  assert.deepEqual([one.target.takeCalls(), one.files.problems()], [[], []]);
});

test('after a start, a file whose id cannot be told holds up every removal', async () => {
  await using one = await world({ 'a.yaml': yaml('irc'), 'b.yaml': yaml('xmpp') });
  one.target.takeCalls();
  await unlink(join(one.directory, 'b.yaml'));
  await one.write('a.yaml', 'id: [');
  await one.restart();
  assert.deepEqual(one.target.takeCalls(), []);
  await one.write('a.yaml', yaml('irc'));
  await one.files.settled();
  assert.deepEqual(one.target.takeCalls(), ['remove xmpp park']);
});

test('R6 of two files with one id neither is applied, both are named, what is in force stays', async () => {
  await using one = await world({ 'a.yaml': yaml('irc') });
  one.target.takeCalls();
  await one.write('b.yaml', yaml('irc', 'as-secret-other'));
  await one.files.settled();
  assert.deepEqual(one.target.takeCalls(), []);
  assert.deepEqual(one.files.problems().map(({ file, field }) => [file, field]), [
    [join(one.directory, 'a.yaml'), 'id'],
    [join(one.directory, 'b.yaml'), 'id'],
  ]);
  assert.match(one.files.problems()[0]?.message ?? '', /The id "irc" is in .*b\.yaml too/);
  await unlink(join(one.directory, 'a.yaml'));
  await one.files.settled();
  assert.deepEqual([one.target.takeCalls(), one.files.problems()], [['put irc'], []]);
});

test('R7 R18 of two files with one as_token neither is applied, and the token is not shown', async () => {
  await using one = await world({ 'a.yaml': yaml('irc', 'as-secret-same'), 'b.yaml': yaml('xmpp', 'as-secret-same'), 'c.yaml': yaml('sms') });
  assert.deepEqual(one.target.takeCalls(), ['put sms']);
  assert.deepEqual(one.files.problems().map(({ field }) => field), ['as_token', 'as_token']);
  assert.match(one.files.problems()[0]?.message ?? '', /as_token of "irc" is in .*b\.yaml too/);
  assert.ok(!/as-secret/.test(JSON.stringify(one.files.problems()) + one.log.join('')));
});

test('R76 a file that is gone has its registration removed with the backlog parked, and one that comes back goes on with it', async () => {
  await using one = await world({ 'a.yaml': yaml('irc'), 'b.yaml': yaml('xmpp') });
  one.target.takeCalls();
  await unlink(join(one.directory, 'a.yaml'));
  await one.files.settled();
  assert.deepEqual(one.target.takeCalls(), ['remove irc park']);
  await one.write('a.yaml', yaml('irc'));
  await one.files.settled();
  assert.deepEqual(one.target.takeCalls(), ['put irc resumed']);
  assert.deepEqual(one.files.problems(), []);
});

test('R76 a file that comes back with another token does not get the parked backlog, and the refusal is reported', async () => {
  await using one = await world({ 'a.yaml': yaml('irc'), 'b.yaml': yaml('xmpp') });
  await unlink(join(one.directory, 'a.yaml'));
  await one.files.settled();
  one.target.takeCalls();
  await one.write('a.yaml', yaml('irc', 'as-secret-of-somebody-else'));
  await one.files.settled();
  assert.deepEqual(one.target.takeCalls(), ['put irc']);
  assert.deepEqual(one.files.problems(), [{ file: join(one.directory, 'a.yaml'), message: 'It was removed with its backlog parked.' }]);
  one.target.parked.clear();
  await one.files.settled();
  assert.deepEqual([one.target.takeCalls(), one.files.problems()], [['put irc'], []], 'tried again once the backlog is given up');
});

test('an empty or missing directory removes nothing and is reported', async () => {
  await using one = await world({ 'a.yaml': yaml('irc') });
  one.target.takeCalls();
  await rename(join(one.directory, 'a.yaml'), join(one.directory, 'a.bak'));
  await one.files.settled();
  assert.match(one.files.problems()[0]?.message ?? '', /holds no \*\.yaml file/);
  await rename(one.directory, `${one.directory}.away`);
  await one.files.settled();
  assert.match(one.files.problems()[0]?.message ?? '', /cannot be read \(ENOENT\)/);
  await one.restart();
  assert.match(one.files.problems()[0]?.message ?? '', /cannot be read \(ENOENT\)/);
  assert.deepEqual(one.target.takeCalls(), []);
  await rename(`${one.directory}.away`, one.directory);
  await rename(join(one.directory, 'a.bak'), join(one.directory, 'a.yaml'));
  await one.files.settled();
  assert.deepEqual([one.target.takeCalls(), one.files.problems()], [[], []]);
});

test('while one path is lost, files gone from another remove nothing', async () => {
  const other = join(await newDirectory(), 'missing');
  const directory = await newDirectory();
  await writeFile(join(directory, 'a.yaml'), yaml('irc'));
  await writeFile(join(directory, 'b.yaml'), yaml('xmpp'));
  await using one = await world({}, { disk: { ...registrationDisk([directory, other]), watch: () => ({ [Symbol.dispose]: () => undefined }) } });
  assert.deepEqual(one.target.takeCalls(), ['put irc', 'put xmpp']);
  await unlink(join(directory, 'b.yaml'));
  await one.files.settled();
  assert.deepEqual(one.target.takeCalls(), []);
  await mkdir(other);
  await writeFile(join(other, 'c.yaml'), yaml('sms'));
  await one.files.settled();
  assert.deepEqual(one.target.takeCalls(), ['remove xmpp park', 'put sms']);
});

test('registrations put by the API are never removed, and a file with such an id wins with a warning', async () => {
  await using one = await world({ 'a.yaml': yaml('irc') });
  const xmpp = registrationFromYaml(yaml('xmpp'), RULES);
  assert.ok(xmpp.kind === 'valid');
  one.target.api(xmpp.registration);
  await one.restart();
  assert.deepEqual(one.target.takeCalls(), ['put irc']);
  await one.write('b.yaml', yaml('xmpp'));
  await one.files.settled();
  assert.deepEqual(one.target.takeCalls(), ['put xmpp']);
  assert.ok(one.log.some((line) => line.startsWith('the file replaced a registration that PutRegistration had put {"appservice_id":"xmpp"')));
});

test('what the API changed since stays until its file changes, whatever happens to other files', async () => {
  await using one = await world({ 'a.yaml': yaml('irc'), 'b.yaml': yaml('xmpp') });
  one.target.takeCalls();
  one.target.inForce.delete('irc');
  await one.write('b.yaml', yaml('xmpp', 'as-secret-new-of-xmpp'));
  await one.files.settled();
  assert.deepEqual(one.target.takeCalls(), ['put xmpp']);
  await one.write('a.yaml', yaml('irc', 'as-secret-new-of-irc'));
  await one.files.settled();
  assert.deepEqual(one.target.takeCalls(), ['put irc']);
});

test('a token that moves from one file to another is followed in one go', async () => {
  await using one = await world({ 'a.yaml': yaml('irc', 'as-secret-one'), 'b.yaml': yaml('xmpp', 'as-secret-two') });
  one.target.takeCalls();
  await one.write('a.yaml', yaml('irc', 'as-secret-two'));
  await one.write('b.yaml', yaml('xmpp', 'as-secret-three'));
  await one.files.settled();
  assert.deepEqual(one.target.takeCalls(), ['put irc', 'put xmpp', 'put irc']);
  assert.deepEqual(one.files.problems(), []);
});

test('a renamed file is no change, a renamed id is a removal and a put', async () => {
  await using one = await world({ 'a.yaml': yaml('irc') });
  one.target.takeCalls();
  await rename(join(one.directory, 'a.yaml'), join(one.directory, 'z.yaml'));
  await one.files.settled();
  assert.deepEqual(one.target.takeCalls(), []);
  await one.write('z.yaml', yaml('irc2', 'as-secret-of-irc'));
  await one.files.settled();
  assert.deepEqual(one.target.takeCalls(), ['remove irc park', 'put irc2']);
});

test('M11 while the store is away the files wait, and they are applied when it is back', async () => {
  await using one = await world({ 'a.yaml': yaml('irc') });
  one.target.takeCalls();
  one.target.refuseWith = new StoreError('unavailable', 'mongodb://user:as-secret@host is away');
  await one.write('b.yaml', yaml('xmpp'));
  await one.files.settled();
  assert.match(one.files.problems()[0]?.message ?? '', /The store does not take it now/);
  assert.ok(!JSON.stringify(one.files.problems()).includes('as-secret'));
  one.target.refuseWith = null;
  await one.files.settled();
  assert.deepEqual([one.target.inForce.has('xmpp'), one.files.problems()], [true, []]);
});

test('a problem is logged once for as long as it lasts', async () => {
  await using one = await world({ 'a.yaml': 'id: [' });
  await one.files.settled();
  await one.files.settled();
  assert.equal(one.log.filter((line) => line.startsWith('a registration file is not applied')).length, 1);
  await one.write('a.yaml', yaml('irc'));
  await one.files.settled();
  assert.equal(one.log.filter((line) => line.startsWith('all registration files are applied again')).length, 1);
});

test('files that are no UTF-8, too large or no files are reported', async () => {
  await using one = await world({ 'a.yaml': yaml('irc'), 'c.yaml': `# ${'x'.repeat(1 << 20)}` });
  await writeFile(join(one.directory, 'b.yaml'), Buffer.from([0x69, 0xff, 0xfe]));
  await mkdir(join(one.directory, 'd.yaml'));
  await symlink(join(one.directory, 'nowhere'), join(one.directory, 'e.yaml'));
  await one.files.settled();
  assert.deepEqual(one.files.problems().map(({ file, message }) => [file.slice(-6), /UTF-8|at most 1048576|no regular file|ENOENT/.exec(message)?.[0]]), [
    ['b.yaml', 'UTF-8'],
    ['c.yaml', 'at most 1048576'],
    ['d.yaml', 'no regular file'],
    ['e.yaml', 'ENOENT'],
  ]);
  assert.deepEqual(one.target.takeCalls(), ['put irc']);
});
