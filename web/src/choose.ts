// Where files come from: the file dialog, or a drop of files or folders anywhere.

/** Calls chosen with the files of each choice. An input is emptied, so that the same file can be chosen again. */
export function watchInput(input: HTMLInputElement, chosen: (files: File[]) => void): void {
  input.addEventListener('change', () => {
    const files = [...(input.files ?? [])]
    input.value = ''
    if (files.length > 0) chosen(files)
  })
}

export function watchDrops(doc: Document, chosen: (files: File[]) => void): void {
  const over = (on: boolean) => doc.body.classList.toggle('dropping', on)
  doc.addEventListener('dragover', (e) => {
    if (!carriesFiles(e)) return
    e.preventDefault()
    over(true)
  })
  doc.addEventListener('dragleave', (e) => {
    if (e.relatedTarget === null) over(false)
  })
  doc.addEventListener('drop', (e) => {
    over(false)
    if (!carriesFiles(e) || !e.dataTransfer) return
    e.preventDefault()
    void dropped(e.dataTransfer).then((files) => files.length > 0 && chosen(files))
  })
}

function carriesFiles(e: DragEvent): boolean {
  return e.dataTransfer?.types.includes('Files') ?? false
}

async function dropped(transfer: DataTransfer): Promise<File[]> {
  // Entries must be taken before the first await: the browser empties the transfer after the event.
  const entries = [...transfer.items].map((i) => i.webkitGetAsEntry?.() ?? null).filter((e) => e !== null)
  if (entries.length === 0) return [...transfer.files]
  return (await Promise.all(entries.map(filesUnder))).flat()
}

/** The files in an entry and below it, without hidden files (.DS_Store) and files that cannot be read. */
async function filesUnder(entry: FileSystemEntry): Promise<File[]> {
  if (entry.isFile) {
    if (entry.name.startsWith('.')) return []
    return new Promise((resolve) => {
      ;(entry as FileSystemFileEntry).file(
        (file) => resolve([file]),
        () => resolve([]),
      )
    })
  }
  const reader = (entry as FileSystemDirectoryEntry).createReader()
  const found: File[] = []
  // A reader gives at most 100 entries a call, and an empty list at the end.
  for (;;) {
    const some = await new Promise<FileSystemEntry[]>((resolve) => reader.readEntries(resolve, () => resolve([])))
    if (some.length === 0) return found
    found.push(...(await Promise.all(some.map(filesUnder))).flat())
  }
}
