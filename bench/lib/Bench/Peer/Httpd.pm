# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Apache httpd on the event MPM, with one of our lanes, with mod_proxy (and mod_http2), or plain
# with a file of its own: otherwise the same server.
package Bench::Peer::Httpd;
use strict;
use warnings;
use Cwd qw(abs_path);
use File::Basename qw(dirname);
use File::Path qw(make_path);
use FindBin qw($Bin);
use Bench::Backend;
use Bench::Process;
use Bench::Programs;

my @modules = qw(mpm_event unixd authz_core log_config ssl);
my @proxy_modules = qw(proxy proxy_http);

# What a peer's name means: RProxyEngine on or off, or the modules that it has instead of ours.
# With "on" httpd does not start unless every route is the engine's, and HTTP/2 is the engine's too:
# there is no mod_http2 beside it.
my %kind = (
    engine    => { engine => 'on' },
    pipeline  => { engine => 'off' },
    pool      => { engine => 'on', pool => 1 },
    mod_proxy => { modules => \@proxy_modules },
    mod_http2 => { modules => [@proxy_modules, 'http2'] },
    httpd     => {},
);

sub new {
    my ($class, $name) = @_;
    return bless { name => $name }, $class;
}

sub httpd { Bench::Programs::find('httpd', 'apache2') }

# The directory of httpd's own modules.
sub module_dir {
    my $apxs = Bench::Programs::find('apxs', 'apxs2');
    chomp(my $dir = $apxs ? `'$apxs' -q LIBEXECDIR` : '');
    my @places = ($dir, qw(/usr/lib/apache2/modules /usr/lib64/httpd/modules
                           /usr/local/apache2/modules));
    return (grep { length && -e "$_/mod_proxy.so" } @places)[0];
}

sub our_module {
    my ($name) = @_;
    return ($ENV{RPROXY_BUILDDIR} || "$Bin/../build") . '/.libs/mod_' . ($name // 'rproxy') . '.so';
}

sub missing {
    my ($self) = @_;
    return 'httpd is not installed' unless httpd();
    return 'no directory with mod_proxy.so is known' unless module_dir();
    return our_module() . ' is not there: build it, or set RPROXY_BUILDDIR'
        if $kind{$self->{name}}{engine} && !-e our_module();
    return undef;
}

sub version { $_[0]{name} . ' in ' . Bench::Programs::version(httpd(), '-v') }

# The lines for the modules every instance has and @further ones, and for @$ours.
sub load_modules {
    my ($ours, @further) = @_;
    my $dir = module_dir();
    my $static = `'@{[httpd()]}' -l`;
    my @lines = map { "LoadModule ${_}_module $dir/mod_$_.so" }
        grep { $static !~ /\bmod_$_\.c/ } @modules, @further;
    push @lines, map { "LoadModule ${_}_module " . abs_path(our_module($_)) } @$ours;
    return join "\n", @lines, '';
}

# As docs/performance.md advises: few children with many threads, for each child has event loops and
# idle upstream connections of its own. With a number of threads all of them are in one child.
sub mpm {
    my ($profile) = @_;
    my $factor = $profile->{connections} > 3000 ? 1000 : 200;
    my $threads = $profile->{threads} or return <<"EOT";
ServerLimit 4
StartServers 1
ThreadsPerChild 100
MaxRequestWorkers 400
MinSpareThreads 25
MaxSpareThreads 400
AsyncRequestWorkerFactor $factor
EOT
    return <<"EOT";
ServerLimit 1
StartServers 1
ThreadsPerChild $threads
MaxRequestWorkers $threads
AsyncRequestWorkerFactor $factor
EOT
}

# An unprivileged user for the children where we are root: httpd insists.
sub user {
    return '' if $> != 0;
    for my $name (qw(www-data apache nobody)) {
        my ($gid) = (getpwnam $name)[3] or next;
        return "User $name\nGroup " . getgrgid($gid) . "\n";
    }
    die "bench: no unprivileged user for httpd: www-data, apache or nobody\n";
}

# What a virtual host does. Profile "pipeline": the paths whose requests the engine hands over, to
# our own handler and to a foreign one that keeps its thread.
sub service {
    my ($self, %args) = @_;
    return "RProxyPass / balancer://bench/\n" if $kind{$self->{name}}{pool};
    my $target = "http://127.0.0.1:$args{backend}";
    if ($kind{$self->{name}}{engine}) {
        my $rules = "RProxyPass / $target/\n";
        $rules .= <<"EOT" if $args{profile}{pipeline};
ProxyPass $args{profile}{pipeline}/handler $target$args{profile}{pipeline}/handler
<Location "$args{profile}{pipeline}/parked">
    RProxyTimeout idle=3600
</Location>
EOT
        return $rules;
    }
    return "ProxyPass / $target/" . ($args{profile}{websockets} ? ' upgrade=websocket' : '') . "\n"
        if $kind{$self->{name}}{modules};
    my $file = "$args{dir}/htdocs$args{profile}{path}";
    make_path(dirname($file));
    open(my $out, '>', $file) or die "bench: $file: $!\n";
    print $out 'x' x 37;
    return "DocumentRoot $args{dir}/htdocs\n";
}

# Profile "pool": its lines. Without them ten members, all of them the one backend.
sub pool {
    my (%args) = @_;
    my $lines = $args{profile}{pool}
        // [map { "RProxyMember http://127.0.0.$_:$args{backend}" } 1 .. Bench::Backend::ADDRESSES];
    return join "\n", '<RProxyBalancer bench>', (map { "    $_" } @$lines), '</RProxyBalancer>', '';
}

# Limits of time for what a client sends, and a status page.
sub exposed {
    my ($port) = @_;
    return <<"EOT";
RequestReadTimeout handshake=10 header=20-40,MinRate=500 body=20,MinRate=500
ExtendedStatus Off
Listen 127.0.0.1:$port
<VirtualHost 127.0.0.1:$port>
    <Location "/">
        SetHandler server-status
    </Location>
</VirtualHost>
EOT
}

sub start {
    my ($self, %args) = @_;
    my ($dir, $profile) = @args{qw(dir profile)};
    my $kind = $kind{$self->{name}};
    my $service = $self->service(%args);
    my $keepalive = $profile->{idle_seconds} // 30;
    my $timeout = $profile->{exposed} ? 60 : 3600;
    my @further = ($profile->{pipeline} && $kind->{engine} ? @proxy_modules : (),
                   $profile->{exposed} ? qw(reqtimeout status) : (), @{$kind->{modules} // []});
    my $settings = mpm($profile);
    $settings .= exposed($args{status}) if $profile->{exposed};
    $settings .= "RProxyEngine $kind->{engine}\n" if $kind->{engine};
    $settings .= pool(%args) if $kind->{pool};
    $settings .= "Protocols h2 http/1.1\n" if $profile->{http2};
    $settings .= <<"EOT";
ListenBacklog 4096
Timeout $timeout
KeepAlive On
KeepAliveTimeout $keepalive
MaxKeepAliveRequests 0
LimitRequestBody 0
LogLevel warn
LogFormat "%h %l %u %t \\"%r\\" %>s %O \\"%{Referer}i\\" \\"%{User-Agent}i\\"" combined
CustomLog $dir/access.log combined
BufferedLogs On
SSLProtocol -all +TLSv1.3
EOT
    my @ours = ($kind->{engine} ? 'rproxy' : (), $kind->{pool} ? 'rproxy_balancer' : ());
    return launch(%args, modules => load_modules(\@ours, @further),
                  settings => $settings, service => $service);
}

# Starts an httpd that has the same service on a plain and on a TLS port. modules, settings and
# service are lines of its configuration; environment may be missing; the rest is as for start().
sub launch {
    my (%args) = @_;
    my $dir = $args{dir};
    open(my $conf, '>', "$dir/httpd.conf") or die "bench: $dir/httpd.conf: $!\n";
    print $conf $args{modules}, user(), <<"EOT";
ServerName localhost
PidFile $dir/httpd.pid
DefaultRuntimeDir $dir
Listen 127.0.0.1:$args{port}
Listen 127.0.0.1:$args{tls}
ErrorLog $dir/error.log
$args{settings}<VirtualHost 127.0.0.1:$args{port}>
$args{service}</VirtualHost>
<VirtualHost 127.0.0.1:$args{tls}>
    SSLEngine on
    SSLCertificateFile $args{cert}
    SSLCertificateKeyFile $args{key}
$args{service}</VirtualHost>
EOT
    close $conf;
    return Bench::Process->start(
        command => [httpd(), '-DFOREGROUND', '-d', $dir, '-f', "$dir/httpd.conf"],
        log => "$dir/error.log", ports => [@args{qw(port tls)}],
        environment => $args{environment});
}

1;
