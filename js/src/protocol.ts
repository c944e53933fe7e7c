// What page and worker say to each other. Everything here survives structured clone.

import type { DeviceChoice, DeviceState, Memory, Precision, Progress, Warning } from './types.js';
import type { Place } from './place.js';
import type { WireError } from './wire.js';

/** How an adapter is read, in the words of the request format. What is not set is left out. */
export interface WireAdapterOptions {
  strict: boolean;
  allow_base_mismatch: boolean;
  task?: number;
  invertible?: boolean;
  reft?: string;
  head?: string;
  tokenizer?: string;
}

/** A call, by operation, without its number. */
export type Call =
  | { op: 'load'; place: Place; precision: Precision; cache: boolean; thread: 'worker' | 'inline'; device: DeviceChoice; profile: boolean }
  | { op: 'loadAdapter'; name: string; place: Place; options: WireAdapterOptions }
  | { op: 'unloadAdapter'; name: string }
  /** `args`: JSON, as the engine reads it. `pixels`: the images that it speaks of, one after the other. */
  | { op: 'run'; task: TaskName; args: string; pixels?: Float32Array }
  | { op: 'explain'; args: string }
  | { op: 'memory' }
  | { op: 'saveIndex'; index: number }
  | { op: 'loadIndex'; bytes: Uint8Array }
  | { op: 'dropIndex'; index: number };

/** The engine's resumable tasks. */
export type TaskName = 'embed' | 'classify' | 'rerank' | 'index' | 'search' | 'languageVector';

/** What a task gave. */
export interface TaskResult {
  /** The answer, parsed. */
  answer: unknown;
  /** A file; empty where there is none. */
  bytes: Uint8Array;
  /** Embeddings; empty where there are none. */
  floats: Float32Array;
  /** Milliseconds of computing. */
  ms: number;
}

/** Page to worker. */
export type Request =
  | { id: number; call: Call }
  | Begin
  | { id: number; abort: true }
  /** A satellite's worker failed: only the page is told. */
  | { lost: number; why: string };

/** What computes. It comes once, after the call that loads, which reads small files meanwhile. */
export interface Begin {
  module: WebAssembly.Module;
  satellites: MessagePort[];
}

/** Worker to page. */
export type Reply =
  | { id: number; value: unknown }
  | { id: number; error: WireError }
  | { id: number; progress: Progress }
  | { device: DeviceState }
  | { profile: Record<string, number> }
  | { warning: Warning };

/** Page to a worker that shall be a satellite, in place of a host. */
export interface Enlist {
  /** The port to the owner. */
  satellite: MessagePort;
  module: WebAssembly.Module;
}

/** Owner to satellite. Layers first: files, shards with their tensors, `finish`; then parcels, in any number. */
export type ToSatellite =
  | { op: 'file'; name: string; bytes: Uint8Array }
  | { op: 'announce'; name: string; length: number }
  | { op: 'shard'; shard: string; header: Uint8Array; length: number }
  | { op: 'expect'; bytes: number }
  | { op: 'part'; bytes: Uint8Array }
  | { op: 'tensor'; shard: string; index: number }
  | { op: 'finish' }
  | { op: 'parcel'; job: number; bytes: Uint8Array }
  | { op: 'drop' }
  | { op: 'memory' }
  | { op: 'close' };

/** Satellite to owner. */
export type FromSatellite =
  | { ready: true }
  | { job: number; answer: Uint8Array }
  | { job: number; failed: WireError }
  | { memory: Memory }
  | { gone: WireError };
