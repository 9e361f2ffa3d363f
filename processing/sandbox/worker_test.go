package sandbox_test

// worker is the life of a program that uses a Box and is killed.
func worker(string) {}
