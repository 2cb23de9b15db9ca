# What QEMU's user emulation is not: a kernel. The tests that find that out are disabled there, by name; all others run.
# Ctest reads this file behind the tests of each directory, and passes over names of others.

# io_uring: there is none.
set_tests_properties(
  "transport:answers of every size land in their buffers, and nowhere else"
  "transport:bytes of a file arrive as those of a room do, between answers from rooms"
  "transport:a file that changed or shrank before it was sent brings no wrong bytes"
  "transport:requests come as they were asked, with their token"
  "transport:as many requests as credits at once, each answered once, in any order"
  "transport:errors come without bytes"
  "transport:who gives up is not told, its buffer stays as it is, and its slot comes back"
  "transport:a cancelled request is answered at once by a target that minds it"
  "transport:a buffer is its owner's at once when it is let go, also in the middle of its payload"
  "transport:when the peer goes, or the link is fenced, each request is lost once"
  "transport:a payload whose checksum does not fit is said to be none"
  "transport:answers nobody asked for, twice, too long or in pieces of nonsense end the link"
  "transport:a target ends a link that uses a slot twice, or asks for more than was granted"
  "transport:a draining target answers what is under way and is asked nothing new"
  "transport:an armed transport wakes who sleeps, a disarmed one does not"
  "transport:a link with nothing to do costs no system call"
  "transport:the io_uring tells nothing of a connection that everything comes from"
  "transport:a connection that was busy wakes who sleeps, at once and after a rest"
  "transport:others are heard beside a busy connection"
  "transport:a busy connection that ends loses each request once"
  "transport:over a network that fails each request ends right, and no buffer changes afterwards"
  "transport:over a network that only cuts pieces, every request is answered"
  "worker:a long read is asked in slices: the first alone, then four at once, in any order"
  "worker:with fewer credits than slices a long read comes all the same"
  "worker:slices that contradict each other are believed none, and what comes late does not land"
  "worker:a link that breaks with slices under way sends the read on, once"
  "worker:a peer that does not answer: a second way is tried, and its answer is taken"
  "worker:a peer that answers first: the second way is called off, and its memory comes back"
  "worker:a peer that fails after a second way was tried: that one decides"
  "worker:a second way that fails leaves the peer its time"
  "worker:neither way answers: the read ends at its deadline, and nothing is left of it"
  "worker:what is too long, or has hints, is not tried a second way"
  "worker:needles of every size go to the gateway with their checksum, and parts of them"
  "worker:a needle longer than a slice comes in slices that name the same record"
  "worker:more than a socket holds is answered to a gateway that listens late"
  "worker:a needle kept in memory is answered as one that is read"
  "worker:what is not there, of another cookie or beyond the end is said"
  "worker:a cancelled request is answered at once, without its bytes"
  "worker:a peer is asked by the ways that are up"
  "worker:of a route whose time is up one read finds out anew, and the others go on by it"
  PROPERTIES DISABLED TRUE)

# RWF_NOWAIT: preadv2() takes no flags, so the storage thread does what the worker would have done at once.
set_tests_properties(
  "worker:random entries with a valid lap mark are each answered, in bounds, with their tag"
  "worker:a needle read again and again comes from memory, until it is another one"
  "worker:what is kept of a volume is forgotten with its files"
  "worker:small compressed needles are inflated at once, large ones by the loader"
  "worker:thousands of reads that waited for one volume are answered in bounded turns"
  PROPERTIES DISABLED TRUE)

# MADV_WIPEONFORK: it is taken and not kept.
set_tests_properties(
  "client:a forked child gets FORKED from every call, may close, and disturbs nobody"
  PROPERTIES DISABLED TRUE)

# Hugepages: it maps memory where they cannot be.
set_tests_properties(
  "attach:holes in hugepages with the pool empty cut off their client, and others read on"
  "memory:a hole in hugepages, with the pool empty, condemns the client and nothing else"
  PROPERTIES DISABLED TRUE)

# Descriptors that do not fit a message: they are made all the same, without a number that is told.
set_tests_properties(
  "shm_ring:more descriptors than there is room for are an error and leak none"
  PROPERTIES DISABLED TRUE)
