// Package deploy checks what operators deploy, by the code of those who read it: the Dockerfile by BuildKit's parser and
// linter, deploy/compose by Docker Compose's loader. It is a module of its own, since what these need is none of the product's
// dependencies.
package deploy
