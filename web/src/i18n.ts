// The texts of the page: Spanish, unless the browser asks for another language.

const es = {
  title: 'Subir archivos',
  heading: 'Sube tus fotos y documentos',
  choose: 'Elegir fotos o documentos',
  dropHint: 'o suéltalos en cualquier parte de la página',
  dropNow: 'Suelta para subir',
  project: 'Obra o proyecto (opcional)',
  projectHint: 'Letras, números, punto, guion o guion bajo; hasta 64.',
  access: 'Código de acceso',
  accessHelp: 'Pega el código que te dio tu empresa. Los archivos que elijas esperan hasta entonces.',
  accessRefused: 'El código no es válido o ya venció. Pega uno nuevo.',
  accessGo: 'Continuar',
  replaceTitle: '¿Cambiar de cuenta?',
  replaceStops: 'Los archivos que faltan no se envían: elígelos otra vez después.',
  replaceKeep: 'Seguir como ahora',
  replaceGo: 'Cambiar',
  sessionNow: 'Ahora: {who}',
  sessionNowUnknown: 'Tu código de acceso ya no es válido.',
  sessionOffered: 'El enlace que abriste: {who}',
  linkRefused: 'El enlace que abriste tiene un código que no es válido o ya venció. Nada cambió.',
  progress: 'Progreso total',
  pauseAll: 'Pausar todo',
  resumeAll: 'Reanudar todo',
  retryAll: 'Reintentar',
  uploads: 'Archivos de ahora',
  recent: 'Subidos hace poco',
  offline: 'Sin conexión. Lo enviado no se pierde. El envío sigue cuando vuelva la conexión.',
  safeCount: '{done} de {all} a salvo',
  bytesCount: '{sent} de {all}',
  left: 'faltan {time}',
  failedCount: '{n} con error',
  allSafe: 'Todo está a salvo. Ya puedes borrar estos archivos del teléfono.',
  checkFirst: 'Todo está guardado tal como lo enviaste. Revisa los que no se ven enteros antes de borrarlos del teléfono.',
  restSafe: 'Los demás archivos están a salvo. Revisa los que tienen error.',
  checking: 'Todos los archivos llegaron. Los estamos revisando.',
  queued: 'En espera',
  waitingAccess: 'Espera el código de acceso',
  uploading: 'Enviando',
  retrying: 'Reintentando',
  paused: 'En pausa',
  pausedNetwork: 'Espera conexión',
  uploaded: 'Recibido',
  processing: 'En revisión',
  completed: 'A salvo',
  failed: 'Error',
  cancelled: 'Cancelado',
  unnamed: 'Sin nombre',
  unfinished: 'Sin terminar: elige el archivo otra vez para seguir',
  expired: 'Venció antes de terminar',
  infected: 'Contiene un virus. Nadie podrá abrirlo aquí.',
  unscannable: 'No se puede revisar si tiene virus. Envíalo sin contraseña o sin comprimir.',
  too_large_to_scan: 'Es demasiado grande para revisar si tiene virus. Envíalo en partes.',
  unreadable: 'El archivo está dañado o cortado. Revisa que se abra y envíalo otra vez.',
  type_mismatch: 'El contenido no corresponde a su tipo. Revisa que se abra y envíalo otra vez.',
  type_not_allowed: 'Este tipo de archivo no se acepta aquí.',
  checksum_mismatch: 'El contenido que llegó es distinto del enviado. Envíalo otra vez.',
  dead_lettered: 'Está guardado, pero no se pudo revisar. Ya avisamos al administrador.',
  refused: 'El servidor no lo aceptó ({status})',
  unreadableHere: 'Ya no se puede leer en este aparato. Elígelo otra vez.',
  partialPhoto: 'La foto llegó dañada: se ve una parte.',
  partialFile: 'El archivo llegó dañado: se ve una parte.',
  noThumbnail: 'Sin imagen.',
  no_thumbnail_too_large: 'Sin imagen: es demasiado grande para mostrarla.',
  no_thumbnail_memory: 'Sin imagen: es demasiado compleja para mostrarla.',
  no_thumbnail_cpu: 'Sin imagen: es demasiado compleja para mostrarla.',
  no_thumbnail_time: 'Sin imagen: es demasiado compleja para mostrarla.',
  no_thumbnail_output: 'Sin imagen: es demasiado compleja para mostrarla.',
  no_thumbnail_unreadable: 'Lo tenemos tal como lo enviaste, pero no se puede mostrar. Revísalo antes de borrarlo.',
  no_thumbnail_unsupported: 'Sin imagen: este formato no se puede mostrar.',
  no_thumbnail_protected: 'Sin imagen: el archivo tiene contraseña.',
  no_thumbnail_tool_missing: 'Sin imagen: aquí no se muestran archivos de este tipo.',
  fileIsSafe: 'El archivo está a salvo.',
  pages: '{n} páginas',
  pagesOne: '1 página',
  pause: 'Pausar {name}',
  resume: 'Reanudar {name}',
  cancel: 'Cancelar {name}',
  retry: 'Reintentar {name}',
  fileProgress: 'Progreso de {name}',
  added: '{n} archivos agregados',
  addedOne: '1 archivo agregado',
  alreadyHere: '{n} ya estaban en la lista',
  alreadyHereOne: '1 ya estaba en la lista',
  backOnline: 'Hay conexión. Seguimos enviando.',
}

export type Key = keyof typeof es

const en: Record<Key, string> = {
  title: 'Upload files',
  heading: 'Upload your photos and documents',
  choose: 'Choose photos or documents',
  dropHint: 'or drop them anywhere on the page',
  dropNow: 'Drop to upload',
  project: 'Site or project (optional)',
  projectHint: 'Letters, digits, dot, hyphen or underscore; up to 64.',
  access: 'Access code',
  accessHelp: 'Paste the code that your company gave you. Files that you choose wait until then.',
  accessRefused: 'The code is not valid or has expired. Paste a new one.',
  accessGo: 'Continue',
  replaceTitle: 'Change the account?',
  replaceStops: 'The files that are not sent yet will not be sent: choose them again afterwards.',
  replaceKeep: 'Go on as now',
  replaceGo: 'Change',
  sessionNow: 'Now: {who}',
  sessionNowUnknown: 'Your access code is no longer valid.',
  sessionOffered: 'The link that you opened: {who}',
  linkRefused: 'The link that you opened has a code that is not valid or has expired. Nothing was changed.',
  progress: 'Overall progress',
  pauseAll: 'Pause all',
  resumeAll: 'Resume all',
  retryAll: 'Retry',
  uploads: 'Files now',
  recent: 'Uploaded recently',
  offline: 'No connection. Nothing that was sent is lost. Sending resumes when the connection is back.',
  safeCount: '{done} of {all} safe',
  bytesCount: '{sent} of {all}',
  left: '{time} left',
  failedCount: '{n} failed',
  allSafe: 'All files are safe. You can delete them from the phone.',
  checkFirst: 'All files are stored as you sent them. Check the ones that are not shown whole before you delete them.',
  restSafe: 'The other files are safe. Check the files with an error.',
  checking: 'All files have arrived. They are being checked.',
  queued: 'Waiting',
  waitingAccess: 'Waiting for the access code',
  uploading: 'Sending',
  retrying: 'Retrying',
  paused: 'Paused',
  pausedNetwork: 'Waiting for a connection',
  uploaded: 'Received',
  processing: 'Being checked',
  completed: 'Safe',
  failed: 'Error',
  cancelled: 'Cancelled',
  unnamed: 'No name',
  unfinished: 'Unfinished: choose the file again to resume',
  expired: 'The upload expired before it was complete',
  infected: 'The file contains a virus',
  unscannable: 'The file cannot be checked for viruses',
  too_large_to_scan: 'The file is too large to be checked for viruses',
  unreadable: 'The file is damaged',
  type_mismatch: 'The content does not match its type',
  type_not_allowed: 'This type of file is not accepted',
  checksum_mismatch: 'The file arrived with other content than was sent',
  dead_lettered: 'The file is stored but could not be checked',
  refused: 'The server did not accept it ({status})',
  unreadableHere: 'The file can no longer be read on this device. Choose it again.',
  partialPhoto: 'The photo arrived damaged: only a part is visible.',
  partialFile: 'The file arrived damaged: only a part is visible.',
  noThumbnail: 'No preview.',
  no_thumbnail_too_large: 'No preview: it is too large to show.',
  no_thumbnail_memory: 'No preview: it is too complex to show.',
  no_thumbnail_cpu: 'No preview: it is too complex to show.',
  no_thumbnail_time: 'No preview: it is too complex to show.',
  no_thumbnail_output: 'No preview: it is too complex to show.',
  no_thumbnail_unreadable: 'We have it exactly as you sent it, but it cannot be shown. Check it before you delete it.',
  no_thumbnail_unsupported: 'No preview: this format cannot be shown.',
  no_thumbnail_protected: 'No preview: the file has a password.',
  no_thumbnail_tool_missing: 'No preview: files of this type are not shown here.',
  fileIsSafe: 'The file is safe.',
  pages: '{n} pages',
  pagesOne: '1 page',
  pause: 'Pause {name}',
  resume: 'Resume {name}',
  cancel: 'Cancel {name}',
  retry: 'Retry {name}',
  fileProgress: 'Progress of {name}',
  added: '{n} files added',
  addedOne: '1 file added',
  alreadyHere: '{n} files were already in the list',
  alreadyHereOne: '1 file was already in the list',
  backOnline: 'The connection is back. Sending resumes.',
}

/** No language at all means Spanish; any language but Spanish means English. */
export function pickLanguage(language: string | undefined): 'es' | 'en' {
  return !language || /^es\b/i.test(language) ? 'es' : 'en'
}

export const language = pickLanguage(typeof navigator === 'undefined' ? undefined : navigator.language)

/** For numbers: the browser's own Spanish or English (12,5 in Spain; 12.5 in Mexico). */
export const locale =
  typeof navigator !== 'undefined' && navigator.language?.startsWith(language) ? navigator.language : language

const words: Record<Key, string> = language === 'es' ? es : en

export function t(key: Key, values: Record<string, string | number> = {}): string {
  return words[key].replace(/\{(\w+)\}/g, (whole, name: string) => String(values[name] ?? whole))
}

export function isKey(name: string): name is Key {
  return Object.hasOwn(words, name)
}

/** Spanish texts for problems that a person can meet here, by type. */
const problems: Record<string, string> = {
  '/problems/bad-metadata': 'Los datos del archivo no son válidos. Revisa el nombre de la obra.',
  '/problems/client-id-taken': 'El archivo cambió desde la última vez. Elígelo otra vez.',
  '/problems/empty': 'El archivo está vacío. Elígelo otra vez, o toma la foto otra vez.',
  '/problems/forbidden': 'Tu código permite ver archivos, pero no enviarlos.',
  '/problems/gone': 'Este envío ya terminó. Elige el archivo otra vez.',
  '/problems/lost': 'Este envío no puede seguir. Elige el archivo otra vez.',
  '/problems/no-tenant': 'Tu código es de una empresa que no existe aquí. Pide uno nuevo.',
  '/problems/quota-exceeded': 'Tu empresa ya no tiene espacio. Avisa a tu administrador.',
  '/problems/suspended': 'Tu empresa está suspendida. No se pierde nada. Avisa a tu administrador.',
  '/problems/too-large': 'El archivo es demasiado grande.',
  '/problems/type-not-allowed': 'Este tipo de archivo no se acepta aquí.',
}

/** The page's text for a problem, or undefined to use the server's. */
export function problemWords(type: unknown): string | undefined {
  return language === 'es' && typeof type === 'string' ? problems[type] : undefined
}

/** Translates the static page: every element that carries data-i18n. */
export function translatePage(root: Document): void {
  root.documentElement.lang = language
  root.title = `${t('title')} · Tramo`
  for (const el of root.querySelectorAll<HTMLElement>('[data-i18n]')) el.textContent = t(el.dataset['i18n'] as Key)
}
