// The little of Node that is used: its full types would be a dependency of everyone who imports this package.

declare module 'node:fs/promises' {
  interface Stats {
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
}

declare module 'node:path' {
  export function basename(path: string): string;
  export function join(...parts: string[]): string;
  export const sep: string;
}

declare module 'node:url' {
  export function fileURLToPath(url: string | URL): string;
}

declare function setImmediate(callback: () => void): unknown;
