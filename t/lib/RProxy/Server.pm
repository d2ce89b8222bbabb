# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# One private httpd: its process, its children, its logs, and whether all of them ended as they
# should. It runs in the foreground as our child and leads its own process group.
package RProxy::Server;
use strict;
use warnings;
use Carp ();
use Fcntl qw(SEEK_SET);
use POSIX qw(WNOHANG);
use RProxy::Platform;
use RProxy::Process;
use RProxy::Wait qw(now seconds wait_until);
use Time::HiRes ();

use constant {
    START_ATTEMPTS        => 5,     # while the address is in use
    STOP_SECONDS          => 15,    # httpd itself kills its children after ten
    SETTLE_SECONDS        => 5,
    GRACEFUL_STOP_SECONDS => 30,    # connections that are kept alive may hold it up
    STARTED               => qr/resuming normal operations/,
    TROUBLE               => qr/exit\ signal|Segmentation\ fault|AH0005[12]:|AH0004[67]:|assertion
        |AddressSanitizer|runtime\ error:|double\ free|stack\ smashing|corrupted/xi,
};

sub new {
    my ($class, %args) = @_;    # config, directory
    my $self = bless { owner => $$, tolerated => [], killed => [], %args }, $class;
    for my $name (qw(conf logs run htdocs)) {
        mkdir "$self->{directory}/$name";
    }
    # Children under another user write their sanitizer logs here.
    mkdir "$self->{directory}/findings";
    chmod 01777, "$self->{directory}/findings";
    return $self;
}

sub conf_file { return "$_[0]{directory}/conf/httpd.conf" }
sub pid { return $_[0]{pid} }

sub write_config {
    my ($self) = @_;
    open my $fh, '>', $self->conf_file or die "$self->{directory}/conf/httpd.conf: $!\n";
    print $fh $self->{config}->text;
    close $fh;
    return;
}

sub _environment {
    my ($self) = @_;
    my $findings = "$self->{directory}/findings";
    # No test trusts the system's CA certificates, and to read them is the most of a start.
    my %environment = (PATH => $ENV{PATH} // '/usr/sbin:/usr/bin:/sbin:/bin', LANG => 'C',
        SSL_CERT_FILE => '/dev/null');
    for my $name (grep { /^(?:LD_LIBRARY_PATH|TMPDIR|RPROXY_.*|OPENSSL_.*)$/ } keys %ENV) {
        $environment{$name} = $ENV{$name};
    }
    if ($ENV{RPROXY_PRELOAD}) {
        $environment{LD_PRELOAD} = $ENV{RPROXY_PRELOAD};
        my $common = "log_path=$findings/sanitizer:print_stacktrace=1";
        $environment{ASAN_OPTIONS} = join ':', $ENV{ASAN_OPTIONS} // (),
            "detect_leaks=0:abort_on_error=0:$common";
        $environment{UBSAN_OPTIONS} = join ':', $ENV{UBSAN_OPTIONS} // (), $common;
        $environment{TSAN_OPTIONS} = join ':', $ENV{TSAN_OPTIONS} // (), $common;
    }
    return %environment;
}

sub _command {
    my ($self, @args) = @_;
    my @command = (RProxy::Platform::httpd(), '-f', $self->conf_file, @args);
    return @command unless $ENV{RPROXY_VALGRIND};
    my $suppressions = RProxy::Platform::source_directory() . '/build-aux/valgrind.supp';
    return ('valgrind', '-q', "--log-file=$self->{directory}/findings/valgrind.%p",
        (-e $suppressions ? "--suppressions=$suppressions" : ()), @command);
}

sub _spawn {
    my ($self, $output, @args) = @_;
    my @command = $self->_command(@args);
    my $pid = fork // die "fork: $!\n";
    return $pid if $pid;
    POSIX::setpgid(0, 0);
    $SIG{$_} = 'DEFAULT' for qw(INT TERM HUP CHLD PIPE);
    %ENV = $self->_environment;
    open STDIN, '<', '/dev/null';
    open STDOUT, '>>', $output;
    open STDERR, '>&', \*STDOUT;
    { no warnings 'exec'; exec @command }
    print STDERR "cannot run $command[0]: $!\n";
    POSIX::_exit(127);
}

# Starts and waits until it serves; dies with what httpd said otherwise.
sub start {
    my ($self) = @_;
    Carp::croak('httpd is running already') if $self->{pid};
    $self->write_config;
    for my $attempt (1 .. START_ATTEMPTS) {
        my ($log_size, $output_size) = ($self->log_size, -s $self->_output || 0);
        $self->{pid} = $self->_spawn($self->_output, '-DFOREGROUND',
            @{ $self->{arguments} // [] });
        delete $self->{exit};
        my $started = wait_until('httpd to start', undef, sub {
            return 'gone' if $self->_reap;
            return $self->error_log($log_size) =~ ($self->{started_log} // STARTED);
        });
        return $self if $started ne 'gone';
        my $said = _read($self->_output, $output_size) . $self->error_log($log_size);
        if ($said =~ /Address already in use/ && $attempt < START_ATTEMPTS) {
            Time::HiRes::sleep(0.1);
            next;
        }
        Carp::croak("httpd did not start: $said");
    }
    return;
}

sub _output { return "$_[0]{directory}/logs/output" }

# True once the process has ended; its wait status is in exit_status then.
sub _reap {
    my ($self) = @_;
    return 1 unless $self->{pid};
    return 0 unless waitpid $self->{pid}, WNOHANG;
    $self->{exit} = $?;
    delete $self->{pid};
    return 1;
}

sub is_running { return !$_[0]->_reap }
sub exit_status { return $_[0]{exit} }

# A run of httpd that ends by itself: (exit code, what it printed).
sub run {
    my ($self, @args) = @_;
    $self->write_config;
    my $output = "$self->{directory}/logs/run";
    unlink $output;
    my $pid = $self->_spawn($output, @args);
    my $ended = eval {
        wait_until("httpd @args to end", undef, sub { return waitpid $pid, WNOHANG });
    };
    my $error = $@;
    my $status = $?;
    if (!$ended) {
        kill 'KILL', $pid;
        waitpid $pid, 0;
        die $error;
    }
    return ($status & 127 ? 128 + ($status & 127) : $status >> 8, _read($output));
}

# ---- signals --------------------------------------------------------------------------------

# A graceful restart with the configuration as it is now; waits until the new generation serves
# every new connection.
sub graceful {
    my ($self) = @_;
    $self->write_config;
    my $size = $self->log_size;
    my %old = map { $_ => 1 } $self->children;
    $self->signal('USR1');
    wait_until('graceful restart', undef, sub {
        die "httpd ended during a graceful restart\n" if $self->_reap;
        return $self->error_log($size) =~ STARTED;
    });
    wait_until('the new generation to take over', undef, sub {
        my @children = $self->children;
        return 0 unless grep { !$old{$_} } @children;
        return !grep { $old{$_} && $self->_may_accept($_) } @children;
    });
    return;
}

# Whether a child of an old generation may still take a connection: not once it has closed its
# listeners, nor, in prefork, while it has a connection already.
sub _may_accept {
    my ($self, $pid) = @_;
    my %listening = map { /^\s*\d+: \S+ \S+ 0A (?:\S+ ){5}\s*(\d+)/ ? ($1 => 1) : () }
        split /\n/, _read('/proc/net/tcp') =~ s/ +/ /gr;
    my @sockets = map { (readlink($_) // '') =~ /^socket:\[(\d+)\]/ ? $1 : () }
        glob "/proc/$pid/fd/*";
    return 0 unless grep { $listening{$_} } @sockets;
    return 1 if $self->{config}{mpm} ne 'prefork';
    return !grep { !$listening{$_} } @sockets;
}

sub signal {
    my ($self, $signal) = @_;
    Carp::croak('httpd is not running') if $self->_reap;
    kill $signal, $self->{pid};
    return;
}

sub graceful_stop { return $_[0]->signal('WINCH') }

sub wait_exit {
    my ($self, $seconds) = @_;
    wait_until('httpd to end', $seconds // GRACEFUL_STOP_SECONDS, sub { return $self->_reap });
    return $self->{exit};
}

# A child of the event MPM that is told to end while it still creates its threads may crash: it
# frees what they use. Such a crash says nothing of a test, so a stop waits until every child has
# slept, with the same threads, at two looks in a row; one that keeps busy is not waited for long.
sub _settle {
    my ($self) = @_;
    my %threads;
    eval {
        wait_until('children to settle', SETTLE_SECONDS, sub {
            my $settled = 1;
            for my $pid ($self->children) {
                my $ids = RProxy::Process::sleeping_threads($pid) // [];
                my $now = @$ids > ($self->{config}{mpm} eq 'prefork' ? 0 : 1) ? "@$ids" : '';
                $settled = 0 if $now eq '' || $now ne ($threads{$pid} // '');
                $threads{$pid} = $now;
            }
            return $settled;
        });
    };
    return;
}

# Stops at once. One that does not end is killed, which is a finding.
sub stop {
    my ($self) = @_;
    return if $self->_reap;
    my $group = $self->{pid};
    $self->_settle;
    kill 'TERM', $group;
    if (!eval { $self->wait_exit(STOP_SECONDS); 1 }) {
        push @{ $self->{killed} }, "httpd did not stop within " . seconds(STOP_SECONDS)
            . ' s of SIGTERM and was killed';
        kill 'KILL', -$group;
        waitpid $group, 0;
        delete $self->{pid};
    }
    kill 'KILL', -$group;
    return;
}

# ---- children -------------------------------------------------------------------------------

sub children {
    my ($self) = @_;
    return $self->{pid} ? RProxy::Process::children_of($self->{pid}) : ();
}

# The newest child, waiting until there is one.
sub child_pid {
    my ($self) = @_;
    return wait_until('a child of httpd', undef, sub { return ($self->children)[-1] });
}

# Bytes: { rss, peak } of a process.
sub memory {
    my ($self, $pid) = @_;
    $pid //= $self->child_pid;
    my $status = _read("/proc/$pid/status");
    my ($rss) = $status =~ /^VmRSS:\s+(\d+)/m or Carp::croak("process $pid has ended");
    my ($peak) = $status =~ /^VmHWM:\s+(\d+)/m;
    return { rss => $rss * 1024, peak => $peak * 1024 };
}

# CPU time of a process so far, in hundredths of a second.
sub cpu {
    my ($self, $pid) = @_;
    $pid //= $self->child_pid;
    my @fields = split / /, _read("/proc/$pid/stat") =~ s/^.*\) //r;
    Carp::croak("process $pid has ended") if @fields < 13;
    return $fields[11] + $fields[12];
}

# The peak counts anew from here.
sub reset_peak {
    my ($self, $pid) = @_;
    $pid //= $self->child_pid;
    open my $fh, '>', "/proc/$pid/clear_refs" or die "/proc/$pid/clear_refs: $!\n";
    syswrite $fh, "5\n";
    return;
}

sub descriptors {
    my ($self, $pid) = @_;
    $pid //= $self->child_pid;
    opendir my $dh, "/proc/$pid/fd" or Carp::croak("/proc/$pid/fd: $!");
    return scalar grep { !/^\./ } readdir $dh;
}

sub threads {
    my ($self, $pid) = @_;
    $pid //= $self->child_pid;
    opendir my $dh, "/proc/$pid/task" or Carp::croak("/proc/$pid/task: $!");
    return scalar grep { !/^\./ } readdir $dh;
}

# ---- logs -----------------------------------------------------------------------------------

sub _read {
    my ($file, $offset) = @_;
    open my $fh, '<:raw', $file or return '';
    seek $fh, $offset, SEEK_SET if $offset;
    local $/;
    return readline($fh) // '';
}

sub log_size { return -s "$_[0]{directory}/logs/error_log" || 0 }

sub error_log {
    my ($self, $offset) = @_;
    return _read("$self->{directory}/logs/error_log", $offset);
}

sub access_log {
    my ($self) = @_;
    return split /\n/, _read("$self->{directory}/logs/access_log");
}

# The first line that matches, from the given offset on.
sub wait_log {
    my ($self, $pattern, $seconds, $offset) = @_;
    return wait_until("$pattern in the error log", $seconds, sub {
        return (grep { $_ =~ $pattern } split /\n/, $self->error_log($offset))[0];
    });
}

sub wait_access_log {
    my ($self, $pattern, $seconds) = @_;
    return wait_until("$pattern in the access log", $seconds, sub {
        return (grep { $_ =~ $pattern } $self->access_log)[0];
    });
}

# ---- findings -------------------------------------------------------------------------------

# Lines of the log that match are no findings: for tests that kill a child on purpose.
sub tolerate {
    my ($self, $pattern) = @_;
    push @{ $self->{tolerated} }, $pattern;
    return;
}

# Everything that must not have happened: texts, best after stop().
sub findings {
    my ($self) = @_;
    my @findings = @{ $self->{killed} };
    for my $line (split /\n/, $self->error_log . _read($self->_output)) {
        next if $line !~ TROUBLE || grep { $line =~ $_ } @{ $self->{tolerated} };
        push @findings, $line;
    }
    for my $file (glob "$self->{directory}/findings/*") {
        my $text = _read($file);
        push @findings, "$file:\n$text" if length $text;
    }
    return @findings;
}

1;
