// Reading and writing elements.

/** The element of a fixed page; its absence is a mistake in index.html. */
export function need<E extends Element>(root: ParentNode, selector: string): E {
  const el = root.querySelector<E>(selector)
  if (!el) throw new Error(`index.html has no ${selector}`)
  return el
}

export function write(el: HTMLElement, text: string): void {
  if (el.textContent !== text) el.textContent = text
}

export function show(el: HTMLElement, visible: boolean): void {
  if (el.hidden === visible) el.hidden = !visible
}
