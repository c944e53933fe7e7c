// The little of Node that is used: its full types would be a dependency of everyone who imports this package.

declare module 'node:fs/promises' {
  export interface Stats {
    isDirectory(): boolean;
    isFile(): boolean;
    readonly size: number;
  }
  interface FileHandle {
    read(buffer: Uint8Array, offset: number, length: number, position: number): Promise<{ bytesRead: number }>;
    close(): Promise<void>;
  }
  export function stat(path: string): Promise<Stats>;
  export function readFile(path: string | URL): Promise<Uint8Array<ArrayBuffer>>;
  export function readdir(path: string, options: { recursive: true }): Promise<string[]>;
  export function open(path: string): Promise<FileHandle>;
  export function mkdir(path: string, options?: { recursive: true }): Promise<string | undefined>;
  export function mkdtemp(prefix: string): Promise<string>;
  export function realpath(path: string): Promise<string>;
  export function rename(from: string, to: string): Promise<void>;
  export function rm(path: string, options: { recursive: true; force: true }): Promise<void>;
  export function writeFile(path: string, bytes: Uint8Array | AsyncIterable<Uint8Array>): Promise<void>;
}

declare module 'node:fs' {
  export function appendFileSync(path: string, bytes: Uint8Array): void;
  export function closeSync(file: number): void;
  export function openSync(path: string, flags: 'r'): number;
  export function readSync(file: number, buffer: Uint8Array, offset: number, length: number, position: number): number;
}

declare module 'node:path' {
  export function basename(path: string): string;
  export function dirname(path: string): string;
  export function isAbsolute(path: string): boolean;
  export function join(...parts: string[]): string;
  export function relative(from: string, to: string): string;
  export function resolve(path: string): string;
  export const sep: string;
}

declare module 'node:url' {
  export function fileURLToPath(url: string | URL): string;
}

declare module 'node:process' {
  interface Output {
    readonly isTTY?: boolean;
    write(text: string): boolean;
  }
  export const argv: string[];
  export function cwd(): string;
  export const stderr: Output;
  export const stdout: Output;
  export function exit(code: number): never;
}

declare module 'node:util' {
  interface Option {
    readonly type: 'string' | 'boolean';
    readonly short?: string;
    readonly default?: string;
  }
  export function parseArgs(config: {
    args: string[];
    options: Readonly<Record<string, Option>>;
    allowPositionals: true;
  }): { values: Record<string, string | boolean | undefined>; positionals: string[] };
}

declare function setImmediate(callback: () => void): unknown;
