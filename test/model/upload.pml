/*
 * The protocol of one upload: lease, fence, take-over, offset, finish, reconcile. docs/explanation/model.md says how to run
 * this and how to read a counterexample.
 *
 * Two clients send the same file, of two units, and a reconciler repairs, until both clients were told that it is complete. Any
 * step of a request may be its last, as if its server crashed. Twice the lease is lost: a server or the reconciler freezes, or
 * Postgres forgets it. A client's connection is cut while its request goes on (half-open), and the client sends another: that is
 * client 0, as the two are alike. Which server has a request makes no difference to any of this, so there may be any number of
 * servers.
 *
 * Each option of the first "if" in "request" is one step: a transaction or a request to S3, with the answer to the client if
 * there is one. "code:" names the functions that it stands for; model_test.go checks that they exist. Each #ifdef takes out one
 * guard, and model_test.go expects an assertion to fail then. A line marked "unreached" is for what does not happen.
 *
 * Transactions are merged: admission takes the lease, and the finish's transaction moves the offset, records the object and
 * the job, and gives the lease back. With SEPARATE, each of these is a transaction of its own.
 */

#define SIZE 2                      /* units of the file */
#define V(p, c) (1 + 2 * (p) + (c)) /* the unit at position p, as client c sends it */
#define BOTH(a, b) ((a) + 8 * (b))  /* the content of an object */
#define NONE 9
#define RECONCILER 3                /* a slot; 0 and 1 are of the requests of client 0, and 2 of those of client 1 */
#define PARTS 7                     /* key: that of the multipart upload */

mtype = { receiving, uploaded, lost };           /* of the upload; pending and uploading are one here */
mtype = { nothing, opened, completed, aborted }; /* of a multipart upload in S3 */
mtype = { post, head, patch };
mtype = { idle, leasing, opening, writing, putting, reserving, sending, committing, finishing, completing, recording, deleting };

/* Postgres: the upload. */
bit exists;
mtype status = receiving;
byte received;              /* contents.received, the offset */
byte hash[SIZE];            /* what contents.hash_state has hashed */
byte units[SIZE];           /* what parts, tail or the whole object have at a position */
byte listed;                /* how many units these have */
bit tail;                   /* the first unit is a tail, and no part */
byte multipart = NONE;      /* contents.multipart_id: the slot of the request that began it */
bit stored;                 /* contents.stored */
byte key = NONE;            /* contents.object_key, once stored: the slot of the request that put it, or PARTS */
byte jobs;

/* Postgres: the lease. Each has a fence of its own: the slot stands for it while the request lasts. */
byte lease = NONE;          /* the fence in the row */
bit alive;                  /* the process that holds it is registered */

/* S3. Keys carry a fence, so each request has a key and a multipart upload of its own. */
byte object[3];             /* 0: there is none */
mtype multiparts[3] = nothing;

/* Clients. The second slot of client 0 is for while the request in the first is half-open. */
bit knows[2];               /* the address of the upload */
byte told[2];               /* the last offset that it was told */
byte awaits[2] = NONE;      /* the slot of the request that it awaits the answer of */

/* Requests, by slot. */
mtype step[4] = idle;
mtype kind[4];
byte fence[4];
bit well[4];                /* nothing has happened to the lease that may cost it */
byte from[4];               /* the offset, as it was when the upload was opened or this request's last commit has moved it */
byte at[4];                 /* the position of what the client sends next */
byte first[4];              /* hash of the first unit, as from */
bit inTail[4];              /* tail, as from */
byte mp[4] = NONE;          /* the multipart upload, as from, or which it has begun */
bit two[4];                 /* two parts are in progress */
byte target = NONE;         /* of the reconciler: whose object or multipart upload it deletes */
bit ofObject;

byte losses;                /* of the lease */
bit cut;                    /* the connection of client 0 */

#define OBJECT_IS_WHOLE (key == PARTS -> \
	multipart != NONE && multiparts[multipart] == completed : object[key] == BOTH(hash[0], hash[1]))
#define PARTS_ARE_THERE (multipart != NONE && (multiparts[multipart] == opened || multiparts[multipart] == completed))

/* The invariants. Each step ends with them. */
inline check() {
	/* The offset is a contiguous prefix, which is what was hashed, each unit at its position. */
	assert(listed == received);
	assert(received < 1 || units[0] == hash[0] && (hash[0] == V(0, 0) || hash[0] == V(0, 1)));
	assert(received < 2 || units[1] == hash[1] && (hash[1] == V(1, 0) || hash[1] == V(1, 1)));
	/* Each byte of it is durable. */
	assert(!stored || OBJECT_IS_WHOLE);
	assert(stored || received == 0 || received == 1 && tail || PARTS_ARE_THERE);
	/* An offset that was told never falls, and no upload is called lost that is not. */
	assert(received >= told[0] && received >= told[1]);
	assert(status != lost);
	/* Complete means complete: the object, the state and exactly one job. */
	assert(told[0] < SIZE && told[1] < SIZE || status == uploaded);
	assert(status != uploaded || stored && received == SIZE);
	assert(jobs == (status == uploaded -> 1 : 0))
}

/* The fence check of a writing transaction locks the row: a take-over waits for the commit.
   code: storage.heldLease, storage.Tx.RequireLease */
#if defined(NO_FENCE_CHECK)
#define LOOKED true
#define AGAIN
#define HELD true
#elif defined(FENCE_CHECK_WITHOUT_LOCK)
byte looked[4]; /* 1: the lease was held; 2: it was not */
#define LOOKED (looked[me] != 0)
#define AGAIN looked[me] = 0;
#define HELD (looked[me] == 1)
#else
#define LOOKED true
#define AGAIN
#define HELD (lease == fence[me])
#endif

#ifdef NO_OFFSET_CHECK
#define AT(offset) true
#else
#define AT(offset) (received == offset && !stored) /* code: storage.Tx.Advance */
#endif

/* A live process is asked for its lease, which is not taken from it. code: lease.takeRow, lease.askHolder */
#ifdef TAKEN_FROM_THE_LIVING
#define FREE true
#else
#define FREE (lease == NONE || !alive)
#endif

/* code: lease.Manager.Acquire, lease.takeRow */
inline take() { lease = fence[me]; alive = 1; well[me] = 1 }

#ifdef FENCES_COME_BACK
byte forgotten = NONE;
#endif

/* code: lease.nextFence */
inline draw() {
	fence[me] = me;
#ifdef FENCES_COME_BACK
	if
	:: forgotten != NONE && step[forgotten] != idle -> fence[me] = forgotten; forgotten = NONE
	:: else
	fi
#endif
}

#define UNFINISHED (received == SIZE && status == receiving) /* code: hooks.Upload.unfinished */

/* code: hooks.Uploads.Record, storage.Tx.MarkUploaded, queue.Queue.Enqueue */
inline record() {
#ifdef RECORDED_TWICE
	status = uploaded; jobs++
#else
	if
	:: status == receiving ->
		status = uploaded;
#ifndef JOB_APART
		jobs++
#endif
	:: else
	fi
#endif
}

/* code: lease.Lease.Release, lease.Manager.giveBack */
inline giveBack() {
#ifdef RELEASED_WITHOUT_FENCE
	lease = NONE; alive = 0
#else
	if
	:: lease == fence[me] -> lease = NONE; alive = 0
	:: else
	fi
#endif
}

#ifdef HEAD_TELLS_ALL
#define TELLS true
#else
#define TELLS !UNFINISHED
#endif
#define READY (me < RECONCILER && step[me] == idle && awaits[c] == NONE && told[c] < SIZE && (me != 1 || step[0] != idle))
inline start(k) { kind[me] = k; awaits[c] = me; draw() }

/* Moves the offset over one unit. */
inline advance(offset, unit) { units[offset] = unit; hash[offset] = unit; listed++; received = offset + 1 }

#ifdef KEYS_WITHOUT_FENCE
#define KEY 0
#else
#define KEY fence[me] /* code: object.Keys.Original */
#endif

/* code: reconcile.orphaned, reconcile.claim.ownsMultipart */
#define ORPHAN(slot) (object[slot] != 0 && !(stored && key == slot))
#define ORPHANED_PARTS(slot) (multiparts[slot] == opened && !(status == receiving && multipart == slot))
#ifdef DELETED_WITHOUT_LEASE
#define DELETES (me == RECONCILER && step[me] == idle)
#else
#define DELETES (me == RECONCILER && step[me] == idle && FREE)
#endif

/* The requests of a slot, one after another, from the first transaction to the answer. Who waits for the lease is idle. */
proctype request(byte me; byte c) {
end:
	atomic {
	if
	/* Creation. Its transaction also takes the lease. */
	:: READY && !knows[c] && !exists -> /* code: hooks.Admission.Admit, storage.Tx.CreateUpload */
		start(post); exists = 1;
#ifdef SEPARATE
		step[me] = leasing
#else
		take(); goto open
#endif
	/* A creation that is repeated gets the upload that there is. */
	:: READY && !knows[c] && exists -> /* code: hooks.Admission.findExisting, hooks.ToldOffset */
		if
#ifndef CREATION_TELLS_ALL
		:: UNFINISHED -> knows[c] = 1
		:: !UNFINISHED ->
#else
		:: true ->
#endif
			assert(received >= told[c]); told[c] = received; knows[c] = 1
		fi
#ifndef SEPARATE
	/* HEAD reads once, without a lease. The code does so only while nobody holds the upload; here it does so at any time. */
	:: READY && knows[c] && TELLS -> assert(received >= told[c]); told[c] = received
	:: READY && knows[c] && FREE && (UNFINISHED || lease != NONE) -> start(head); take(); goto open
	:: READY && knows[c] && FREE -> start(patch); take(); goto open
#else
	:: READY && knows[c] && FREE -> start(head); take(); step[me] = opening
	:: READY && knows[c] && FREE -> start(patch); take(); step[me] = opening
	:: step[me] == leasing && FREE -> take(); step[me] = opening
	:: step[me] == opening -> goto open
#endif

	/* The whole file: one object. code: object.flush.put, object.Bucket.putRun */
	:: step[me] == writing && from[me] == 0 ->
		object[KEY] = BOTH(V(at[me], c), V(at[me] + 1, c)); first[me] = V(at[me], c); at[me]++; step[me] = putting
	/* The first unit: a tail. code: object.flush.keepTail, storage.Tx.AppendTail, storage.Tx.Advance */
	:: step[me] == writing && from[me] == 0 && LOOKED ->
		if
		:: !HELD -> goto refused
		:: HELD && !AT(0) -> goto leave
		:: HELD && AT(0) ->
			advance(0, V(at[me], c)); tail = 1;
			first[me] = hash[0]; inTail[me] = 1; from[me] = 1; at[me]++; AGAIN
		fi
	/* The rest after a tail: one object of both. code: object.flush.readTail, object.Bucket.putRun */
	:: step[me] == writing && from[me] == 1 && inTail[me] && !tail -> goto lose
	:: step[me] == writing && from[me] == 1 && inTail[me] && tail ->
		object[KEY] = BOTH(units[0], V(at[me], c)); step[me] = putting;
#ifdef TAIL_DROPPED_FIRST
		tail = 0
#endif
	/* The whole object counts. code: storage.Tx.Advance */
	:: step[me] == putting && LOOKED ->
		if
		:: !HELD -> goto refused
		:: HELD && !AT(from[me]) -> goto leave
		:: HELD && AT(from[me]) ->
			units[0] = object[KEY] % 8; units[1] = object[KEY] / 8; listed = SIZE;
			hash[0] = first[me]; hash[1] = V(at[me], c); received = SIZE; tail = 0;
			key = KEY; goto finish
		fi

	/* One unit, or both at once, as parts. code: object.multipart.begin, object.Bucket.beginMultipart */
	:: step[me] == writing && !inTail[me] && mp[me] == NONE ->
		multiparts[fence[me]] = opened; mp[me] = fence[me]; step[me] = reserving
	/* code: object.flush.reserve, object.multipart.reserve, storage.Tx.ReservePart */
	:: (step[me] == reserving || step[me] == writing && !inTail[me] && mp[me] != NONE) && LOOKED ->
		if
		:: !HELD -> goto refused
		:: HELD && (multipart != NONE && multipart != mp[me] || stored) -> goto leave
		:: HELD && (multipart == NONE || multipart == mp[me]) && !stored ->
			multipart = mp[me]; step[me] = sending; AGAIN
			if
			:: from[me] == 0 -> two[me] = 1
			:: true
			fi
		fi
	/* code: object.flush.putPart, object.Bucket.putPart */
	:: step[me] == sending && multiparts[mp[me]] != opened -> goto lose
	:: step[me] == sending && multiparts[mp[me]] == opened ->
		step[me] = committing;
#ifdef PART_NUMBERS_COME_BACK
		/* The part has the number of the one that is recorded at its offset, and replaces it. */
		if
		:: listed > from[me] && !stored && multipart == mp[me] && !(from[me] == 0 && tail) -> units[from[me]] = V(at[me], c)
		:: else
		fi
#endif
	/* Of two parts either may come first: the model does without the order that the code keeps. code: object.flush.follow */
	:: step[me] == committing && LOOKED ->
		if
		:: !HELD -> goto refused
		:: HELD && !AT(from[me]) -> goto leave
		:: HELD && AT(from[me]) ->
			advance(from[me], V(at[me], c)); first[me] = hash[0]; from[me]++; at[me]++; AGAIN
			if
			:: two[me] -> two[me] = 0
			:: !two[me] && from[me] < SIZE -> step[me] = writing
			:: !two[me] && from[me] == SIZE -> step[me] = finishing
			fi
		fi
	:: step[me] == committing && two[me] && LOOKED && HELD ->
		if
		:: !AT(from[me] + 1)
		:: AT(from[me] + 1) -> units[1] = V(at[me] + 1, c); hash[1] = units[1]; listed++; received = SIZE /* unreached */
		fi;
		goto leave

	/* The object of the parts. code: object.Upload.Assemble, object.Upload.complete, object.Bucket.completeMultipart */
	:: step[me] == finishing && multiparts[mp[me]] == opened -> multiparts[mp[me]] = completed; step[me] = completing
#ifdef COMPLETED_TAKEN_FOR_LOST
	:: step[me] == finishing && multiparts[mp[me]] == completed -> goto lose
#else
	:: step[me] == finishing && multiparts[mp[me]] == completed -> step[me] = completing /* code: object.Upload.checkAssembled */
#endif
	:: step[me] == finishing && multiparts[mp[me]] != opened && multiparts[mp[me]] != completed -> goto lose
	/* It counts. code: storage.Tx.Advance */
	:: step[me] == completing && LOOKED ->
		if
		:: !HELD -> goto refused
		:: HELD && !AT(SIZE) -> goto leave
		:: HELD && AT(SIZE) -> key = PARTS; goto finish
		fi
#ifdef SEPARATE
	/* code: hooks.Uploads.Record */
	:: step[me] == recording -> record(); goto answer
#endif
#ifdef JOB_APART
	:: step[me] == recording -> jobs++; goto answer
#endif

	/* A body may end after any of its bytes. */
	:: step[me] == writing -> goto answer
#ifdef TOLD_BEFORE_FINISH
	:: step[me] == finishing || step[me] == recording -> goto answer
#endif
	/* Its server crashes, S3 or Postgres fails, or somebody else wants the upload. */
	:: step[me] != idle -> goto leave
#ifdef FENCE_CHECK_WITHOUT_LOCK
	:: step[me] != idle && looked[me] == 0 -> looked[me] = (lease == fence[me] -> 1 : 2)
#endif

	/* The reconciler finishes what was cut off.
	   code: reconcile.Reconciler.finish, reconcile.Reconciler.underLease, reconcile.confirm */
	:: me == RECONCILER && step[me] == idle && UNFINISHED && FREE -> kind[me] = head; draw(); take(); goto open
	/* It deletes from S3 what no row names. code: reconcile.Reconciler.remove, reconcile.Reconciler.underLease */
	:: DELETES && ORPHAN(0) -> target = 0; ofObject = 1; goto remove
	:: DELETES && ORPHAN(1) -> target = 1; ofObject = 1; goto remove
	:: DELETES && ORPHAN(2) -> target = 2; ofObject = 1; goto remove
	:: DELETES && ORPHANED_PARTS(0) -> target = 0; ofObject = 0; goto remove
	:: DELETES && ORPHANED_PARTS(1) -> target = 1; ofObject = 0; goto remove
	:: DELETES && ORPHANED_PARTS(2) -> target = 2; ofObject = 0; goto remove
	/* code: reconcile.Reconciler.erase, object.Bucket.Delete, object.Bucket.Abort */
	:: step[me] == deleting ->
		if
		:: target == NONE
		:: target != NONE && ofObject -> object[target] = 0
		:: target != NONE && !ofObject -> multiparts[target] = aborted
		fi;
		target = NONE; ofObject = 0; goto leave
	fi;
	goto done;

remove:
	draw(); step[me] = deleting;
#ifndef DELETED_WITHOUT_LEASE
	take();
#endif
	goto done;

/* Reads the upload, and goes on to what is next: one that has all its bytes and was never finished is finished first.
   code: hooks.Uploads.Acquire, hooks.Upload.Continue, hooks.Upload.resume, storage.ReadContent */
open:
	from[me] = received; first[me] = hash[0]; inTail[me] = tail; mp[me] = multipart;
	at[me] = (kind[me] == patch -> told[c] : 0);
	if
	:: status == uploaded -> goto answer
#ifndef OPENED_UNFINISHED
	:: UNFINISHED && !stored -> step[me] = finishing
	:: UNFINISHED && stored -> step[me] = recording
#endif
	:: else ->
		if
		:: kind[me] == head -> goto answer
#ifdef ANY_OFFSET
		:: kind[me] != head -> step[me] = writing
#else
		:: kind[me] != head && at[me] != from[me] -> goto leave /* code: object.Upload.Write */
		:: kind[me] != head && at[me] == from[me] -> step[me] = writing
#endif
		fi
	fi;
	if
	:: kind[me] != post -> kind[me] = 0
	:: else
	fi;
	goto done;

/* The object is recorded, and with it all that makes the upload complete. code: hooks.Upload.Finish */
finish:
	stored = 1; from[me] = SIZE;
#ifdef SEPARATE
	step[me] = recording; AGAIN
	goto done;
#else
	record(); giveBack();
#ifdef JOB_APART
	step[me] = recording;
	goto done;
#endif
#endif

/* The request is over, and the client hears the offset, if it still listens. If it hears it later, that makes no difference: the
   offset only grows. */
answer:
	if
	:: me < RECONCILER && awaits[c] == me -> assert(from[me] >= told[c]); told[c] = from[me]; knows[c] = 1
	:: true
	fi;
	goto leave;

/* The upload ends as lost. code: object.Upload.lost, hooks.Upload.endLost, hooks.Uploads.lose, hooks.Upload.held */
lose:
#ifdef LOST_WITHOUT_FENCE
	if
	:: status == receiving -> status = lost
	:: else
	fi;
	goto leave;
#else
	if
	:: lease == fence[me] -> status = lost; goto leave /* unreached */
	:: else
	fi;
#endif

/* A transaction without the lease is refused. A request whose server is well has its lease: what its client has sent is not to
   be sent again. */
refused:
	assert(!well[me]);

/* A request is over. What it has left in S3 and not committed carries its fence, which nobody has again: whether the
   reconciler deletes it makes no difference from now on. */
leave:
	giveBack();
	if
	:: kind[me] == post && awaits[c] == me -> knows[c] = 1 /* errors have the address as well. code: tus.exchange.finish */
	:: true
	fi;
	if
	:: me < RECONCILER && awaits[c] == me -> awaits[c] = NONE
	:: else
	fi;
	if
	:: me < RECONCILER && multiparts[me] != nothing && multipart != me ->
		multiparts[me] = nothing;
		if
		:: target == me && !ofObject -> target = NONE
		:: else
		fi
	:: else
	fi;
#ifndef KEYS_WITHOUT_FENCE
	if
	:: me < RECONCILER && object[me] != 0 && !(stored && key == me) ->
		object[me] = 0;
		if
		:: target == me && ofObject -> target = NONE
		:: else
		fi
	:: else
	fi;
#endif
	AGAIN
	step[me] = idle; kind[me] = 0; fence[me] = 0; well[me] = 0;
	from[me] = 0; at[me] = 0; first[me] = 0; inTail[me] = 0; mp[me] = NONE; two[me] = 0;

done:
	printf("slot %d: %e; offset %d, lease %d, told %d %d\n", me, step[me], received, lease, told[0], told[1]);
	check()
	}
	goto end
}

init {
	atomic {
		run request(0, 0); run request(1, 0); run request(2, 1); run request(RECONCILER, 0)
	}
end:
	do
	/* The heartbeats of a process fail for the time to live, or it was frozen for as long, and wakes up: its requests go on.
	   code: lease.Manager.renew, lease.Manager.register, lease.Manager.lose */
	:: atomic { losses < 2 && lease != NONE && alive -> losses++; alive = 0; well[lease] = 0; printf("slot %d: frozen\n", lease) }
	/* Postgres crashes. Leases are committed lazily. code: storage.Lazily */
	:: atomic { losses < 2 && lease < RECONCILER ->
		losses++; well[lease] = 0; printf("slot %d: its lease is forgotten\n", lease);
#ifdef FENCES_COME_BACK
		forgotten = lease;
#endif
		lease = NONE; alive = 0
	}
#ifdef EXPIRED_RENEWED
	/* A heartbeat renews a row that a take-over has read as expired. */
	:: atomic { lease != NONE && !alive && !well[lease] -> well[lease] = 1 }
#endif
	:: atomic { !cut && awaits[0] != NONE -> printf("slot %d: half-open\n", awaits[0]); cut = 1; awaits[0] = NONE }
	od
}
