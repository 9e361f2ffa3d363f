package storage

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
)

// Progress that is noted every 10 ms for ten seconds is notified once a second, and after the last of it once more. A change
// of status is notified after 75 ms, and takes the progress of its upload along.
func TestNotificationsOfProgress(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var sent []time.Duration
		n := newNotifier(func(_ context.Context, all map[change]struct{}) error {
			if len(all) != 1 {
				t.Errorf("a notification has %d changes of one upload", len(all))
			}
			sent = append(sent, time.Since(began))
			return nil
		})
		upload := []change{{tenant: uuid.New(), kind: UploadChanged, id: uuid.New()}}
		for range 1000 {
			n.note(changes{progress: upload})
			<-time.After(10 * time.Millisecond)
		}
		<-time.After(time.Minute)
		synctest.Wait()
		for i, at := range sent {
			if least := time.Duration(i+1) * notifyProgressEvery; at < least {
				t.Errorf("notification %d was sent after %s, want %s or later", i+1, at, least)
			}
		}
		if len(sent) < 9 || sent[len(sent)-1] < 10*time.Second {
			t.Errorf("progress of ten seconds was notified at %s, want once a second and after its end", sent)
		}

		sent, began = nil, time.Now()
		n.note(changes{progress: upload})
		n.note(changes{now: upload})
		n.note(changes{progress: upload})
		<-time.After(time.Minute)
		synctest.Wait()
		if len(sent) != 1 || sent[0] != notifyEvery {
			t.Errorf("a status was notified at %s, want once, after %s", sent, notifyEvery)
		}
	})
}
