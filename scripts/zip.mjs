// A small reader of ZIP archives: finds members in the central directory and streams them out, CRC checked.
// Stored and deflated members, no encryption, no ZIP64 (the archives here are far under 4 GB).
import { createReadStream, createWriteStream } from 'node:fs';
import { mkdir, open, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createInflateRaw } from 'node:zlib';

const END = 0x06054b50;
const ENTRY = 0x02014b50;
const LOCAL = 0x04034b50;

/** The members of an archive: name, sizes, method, crc and the offset of the local header. */
export async function listZip(file) {
  const handle = await open(file);
  try {
    const { size } = await handle.stat();
    const tail = await readAt(handle, Math.max(0, size - 65557), Math.min(size, 65557), file);
    let end = tail.length - 22;
    while (end >= 0 && tail.readUInt32LE(end) !== END) end -= 1;
    if (end < 0) throw new Error(`${file}: not a ZIP archive, or cut short`);
    const count = tail.readUInt16LE(end + 10);
    const length = tail.readUInt32LE(end + 12);
    const offset = tail.readUInt32LE(end + 16);
    if (count === 0xffff || offset === 0xffffffff) throw new Error(`${file}: ZIP64 is not supported`);
    const directory = await readAt(handle, offset, length, file);
    const members = [];
    for (let i = 0, p = 0; i < count; i += 1) {
      if (p + 46 > directory.length || directory.readUInt32LE(p) !== ENTRY) {
        throw new Error(`${file}: broken central directory at entry ${i}`);
      }
      const nameLength = directory.readUInt16LE(p + 28);
      members.push({
        name: directory.toString('utf8', p + 46, p + 46 + nameLength),
        flags: directory.readUInt16LE(p + 8),
        method: directory.readUInt16LE(p + 10),
        crc: directory.readUInt32LE(p + 16),
        packed: directory.readUInt32LE(p + 20),
        size: directory.readUInt32LE(p + 24),
        header: directory.readUInt32LE(p + 42),
      });
      p += 46 + nameLength + directory.readUInt16LE(p + 30) + directory.readUInt16LE(p + 32);
    }
    return members;
  } finally {
    await handle.close();
  }
}

/** Writes one member to `target`; the file appears only when it is whole and its CRC is right. */
export async function extractMember(file, member, target) {
  if (member.flags & 1) throw new Error(`${file}: ${member.name} is encrypted`);
  if (member.method !== 0 && member.method !== 8) {
    throw new Error(`${file}: ${member.name} uses compression method ${member.method}`);
  }
  const handle = await open(file);
  let start;
  try {
    const header = await readAt(handle, member.header, 30, file);
    if (header.readUInt32LE(0) !== LOCAL) throw new Error(`${file}: no local header for ${member.name}`);
    start = member.header + 30 + header.readUInt16LE(26) + header.readUInt16LE(28);
  } finally {
    await handle.close();
  }
  await mkdir(path.dirname(target), { recursive: true });
  const temporary = `${target}.${process.pid}.tmp`;
  let crc = 0xffffffff;
  let size = 0;
  const check = new Transform({
    transform(chunk, _encoding, done) {
      crc = crc32(chunk, crc);
      size += chunk.length;
      done(null, chunk);
    },
  });
  try {
    if (member.packed === 0) {
      await pipeline([], check, createWriteStream(temporary));
    } else {
      const source = createReadStream(file, { start, end: start + member.packed - 1 });
      const unpack = member.method === 8 ? [createInflateRaw()] : [];
      await pipeline(source, ...unpack, check, createWriteStream(temporary));
    }
    if (size !== member.size || (crc ^ 0xffffffff) >>> 0 !== member.crc) {
      throw new Error(`${file}: ${member.name} is damaged (size or CRC differs)`);
    }
    await rename(temporary, target);
  } finally {
    await rm(temporary, { force: true });
  }
}

async function readAt(handle, position, length, file) {
  const buffer = Buffer.alloc(length);
  const { bytesRead } = await handle.read(buffer, 0, length, position);
  if (bytesRead !== length) throw new Error(`${file}: cut short`);
  return buffer;
}

const table = new Uint32Array(256).map((_, n) => {
  for (let k = 0; k < 8; k += 1) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n >>> 0;
});

function crc32(bytes, crc) {
  for (let i = 0; i < bytes.length; i += 1) crc = table[(crc ^ bytes[i]) & 0xff] ^ (crc >>> 8);
  return crc;
}
