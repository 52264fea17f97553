//! Pipes, against files of std on the same kind of pipe.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use isochrome::Runtime;
use isochrome::net::pipe::{self, Receiver, Sender};

use crate::common;
use crate::common::agree::{same, same_error};
use crate::common::everywhere;
use crate::common::local::Place;

everywhere!(what_is_written_is_read, ends_that_are_gone, fifos);

/// A pipe of std's.
fn std_pipe() -> (File, File) {
    let mut fds = [0; 2];
    // SAFETY: two numbers are written.
    let made = unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) };
    assert_eq!(made, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: just opened, and told nobody else.
    let [read, write] = fds.map(|fd| File::from(unsafe { OwnedFd::from_raw_fd(fd) }));
    (write, read)
}

fn nonblocking(pipe: &File) {
    use std::os::fd::AsRawFd;
    // SAFETY: no memory is touched.
    let set = unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

fn what_is_written_is_read(rt: Runtime) {
    rt.block_on(async {
        let (sender, receiver) = pipe::anonymous().unwrap();
        let (mut write, mut read) = std_pipe();
        nonblocking(&read);
        nonblocking(&write);
        let [mut a, mut b] = [[0; 4]; 2];
        same(receiver.try_read(&mut a), read.read(&mut b));
        same(sender.write(b"one").await, write.write(b"one"));
        same(sender.write_all(b"two").await, write.write_all(b"two"));
        same(sender.send_all("three").await.0, write.write_all(b"three"));
        same(sender.try_write(b"four"), write.write(b"four"));
        same(receiver.read(&mut a).await, read.read(&mut b));
        assert_eq!(a, b);
        let (got, a) = receiver.read_owned(a.to_vec()).await;
        same(got, read.read(&mut b));
        assert_eq!(a, b.to_vec());
        same(receiver.read(&mut [0; 90]).await, read.read(&mut [0; 90]));
        // Several slices.
        let slices = [
            IoSlice::new(b"one"),
            IoSlice::new(b""),
            IoSlice::new(b"three"),
        ];
        same(
            sender.write_vectored(&slices).await,
            write.write_vectored(&slices),
        );
        same(
            sender.try_write_vectored(&slices),
            write.write_vectored(&slices),
        );
        let [mut a, mut b, mut c, mut d] = [[0; 4]; 4];
        for tries in [false, true] {
            let of_ours = &mut [IoSliceMut::new(&mut a), IoSliceMut::new(&mut c)];
            let of_std = &mut [IoSliceMut::new(&mut b), IoSliceMut::new(&mut d)];
            let got = match tries {
                true => receiver.try_read_vectored(of_ours),
                false => receiver.read_vectored(of_ours).await,
            };
            same(got, read.read_vectored(of_std));
            assert_eq!((a, c), (b, d));
        }
        let of_ours = &mut [IoSliceMut::new(&mut a)];
        let of_std = &mut [IoSliceMut::new(&mut b)];
        same(
            receiver.try_read_vectored(of_ours),
            read.read_vectored(of_std),
        );
        same(sender.write_all(b"exact").await, write.write_all(b"exact"));
        same(receiver.read_exact(&mut a).await, read.read_exact(&mut b));
        assert_eq!(a, b);
        same(receiver.read(&mut a).await, read.read(&mut b));
        // As much as there is room for, and then not at all.
        let much = vec![0; 1 << 20];
        same(sender.try_write(&much), write.write(&much));
        same(sender.try_write(&much), write.write(&much));
    });
}

fn ends_that_are_gone(rt: Runtime) {
    rt.block_on(async {
        let (sender, receiver) = pipe::anonymous().unwrap();
        let (mut write, read) = std_pipe();
        drop((receiver, read));
        same(sender.write(b"x").await, write.write(b"x"));
        let slices = [IoSlice::new(b"x")];
        same(
            sender.write_vectored(&slices).await,
            write.write_vectored(&slices),
        );
        same(
            sender.try_write_vectored(&slices),
            write.write_vectored(&slices),
        );
        same(sender.write_all(b"x").await, write.write_all(b"x"));
        same(sender.send_all("x").await.0, write.write_all(b"x"));
        same(sender.try_write(b"x"), write.write(b"x"));
        let (sender, receiver) = pipe::anonymous().unwrap();
        let (mut write, mut read) = std_pipe();
        same(sender.write(b"last").await, write.write(b"last"));
        drop((sender, write));
        let [mut a, mut b] = [[0; 8]; 2];
        for _ in 0..3 {
            same(receiver.read(&mut a).await, read.read(&mut b));
        }
        same(receiver.try_read(&mut a), read.read(&mut b));
        let error = receiver.read_exact(&mut a).await.unwrap_err();
        assert_eq!(error.kind(), read.read_exact(&mut b).unwrap_err().kind());
        same(
            receiver.try_read_vectored(&mut [IoSliceMut::new(&mut a)]),
            read.read_vectored(&mut [IoSliceMut::new(&mut b)]),
        );
        // As text, if it is.
        for text in ["gr\u{fc}n".as_bytes(), b"gr\xfcn", b""] {
            let (sender, receiver) = pipe::anonymous().unwrap();
            let (mut write, mut read) = std_pipe();
            same(sender.write(text).await, write.write(text));
            drop((sender, write));
            let [mut a, mut b] = ["first".to_owned(), "first".to_owned()];
            let ours = receiver.read_to_string(&mut a).await;
            let std = read.read_to_string(&mut b);
            same(
                ours.map_err(|e| e.kind().into()),
                std.map_err(|e| e.kind().into()),
            );
            assert_eq!(a, b);
        }
        // All of it, behind what was there.
        let (sender, receiver) = pipe::anonymous().unwrap();
        let (mut write, mut read) = std_pipe();
        let much = [7; 60_000];
        same(sender.write(&much).await, write.write(&much));
        drop((sender, write));
        let [mut a, mut b] = [b"first".to_vec(), b"first".to_vec()];
        for _ in 0..2 {
            same(receiver.read_to_end(&mut a).await, read.read_to_end(&mut b));
            assert_eq!(a, b);
        }
        // The wrong end.
        let (write, read) = std_pipe();
        let error = Receiver::from_fd(write).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let error = Sender::from_fd(read).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    });
}

fn fifos(rt: Runtime) {
    let place = Place::new();
    rt.block_on(async {
        let path = place.path("fifo");
        pipe::create_fifo(&path, 0o600).await.unwrap();
        let make = |name: &str| {
            let path = std::ffi::CString::new(place.path(name).to_str().unwrap()).unwrap();
            // SAFETY: a string that ends with NUL.
            match unsafe { libc::mkfifo(path.as_ptr(), 0o600) } {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        };
        for name in ["fifo", "no/such/directory", "fifo/below"] {
            let ours = pipe::create_fifo(place.path(name), 0o600).await;
            same(ours, make(name));
        }
        let ours = pipe::OpenOptions::new();
        let open = |path: &std::path::Path, write: bool| {
            let mut options = OpenOptions::new();
            options.read(!write).write(write);
            options.custom_flags(libc::O_NONBLOCK).open(path)
        };
        for name in ["nowhere", "fifo/below"] {
            let path = place.path(name);
            same_error(ours.open_receiver(&path).await, open(&path, false));
            same_error(ours.open_sender(&path).await, open(&path, true));
        }
        // Nobody reads it: the number is ENXIO, and the error says so.
        let error = ours.open_sender(&path).await.unwrap_err();
        assert_eq!(
            open(&path, true).unwrap_err().raw_os_error(),
            Some(libc::ENXIO)
        );
        assert!(error.to_string().contains("ENXIO"), "{error}");
        let _receiver = ours.open_receiver(&path).await.unwrap();
        let _sender = ours.open_sender(&path).await.unwrap();
        // A directory is one to std, and no FIFO to us.
        let error = ours.open_receiver(place.path("")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    });
}
