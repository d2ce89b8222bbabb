# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Apache httpd on the event MPM, with mod_rproxy or with mod_proxy: otherwise the same server.
package Bench::Peer::Httpd;
use strict;
use warnings;
use Cwd qw(abs_path);
use FindBin qw($Bin);
use Bench::Process;
use Bench::Programs;

my @modules = qw(mpm_event unixd authz_core log_config ssl);
my %own_modules = (mod_proxy => [qw(proxy proxy_http)], mod_rproxy => []);

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

sub our_module { ($ENV{RPROXY_BUILDDIR} || "$Bin/../build") . '/.libs/mod_rproxy.so' }

sub missing {
    my ($self) = @_;
    return 'httpd is not installed' unless httpd();
    return 'no directory with mod_proxy.so is known' unless module_dir();
    return our_module() . ' is not there: build it, or set RPROXY_BUILDDIR'
        if $self->{name} eq 'mod_rproxy' && !-e our_module();
    return undef;
}

sub version { $_[0]{name} . ' in ' . Bench::Programs::version(httpd(), '-v') }

sub load_modules {
    my ($self) = @_;
    my $dir = module_dir();
    my $static = `'@{[httpd()]}' -l`;
    my @lines = map { "LoadModule ${_}_module $dir/mod_$_.so" }
        grep { $static !~ /\bmod_$_\.c/ } @modules, @{$own_modules{$self->{name}}};
    push @lines, 'LoadModule rproxy_module ' . abs_path(our_module())
        if $self->{name} eq 'mod_rproxy';
    return join "\n", @lines;
}

# Stock settings, or all threads in one child.
sub mpm {
    my ($profile) = @_;
    my $factor = $profile->{connections} > 3000 ? 1000 : 200;
    my $threads = $profile->{threads} or return <<"EOT";
ServerLimit 16
StartServers 2
ThreadsPerChild 25
MaxRequestWorkers 400
MinSpareThreads 75
MaxSpareThreads 250
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

sub start {
    my ($self, %args) = @_;
    my $dir = $args{dir};
    my $target = "http://127.0.0.1:$args{backend}/";
    my $upgrade = $args{profile}{websockets} ? ' upgrade=websocket' : '';
    my $proxy = $self->{name} eq 'mod_rproxy' ? "RProxyPass / $target"
                                              : "ProxyPass / $target$upgrade";
    open(my $conf, '>', "$dir/httpd.conf") or die "bench: $dir/httpd.conf: $!\n";
    print $conf $self->load_modules, "\n", user(), mpm($args{profile}), <<"EOT";
ServerName localhost
PidFile $dir/httpd.pid
DefaultRuntimeDir $dir
Listen 127.0.0.1:$args{port}
Listen 127.0.0.1:$args{tls}
ListenBacklog 4096
Timeout 3600
KeepAlive On
KeepAliveTimeout 30
MaxKeepAliveRequests 0
LimitRequestBody 0
LogLevel warn
ErrorLog $dir/error.log
LogFormat "%h %l %u %t \\"%r\\" %>s %O \\"%{Referer}i\\" \\"%{User-Agent}i\\"" combined
CustomLog $dir/access.log combined
BufferedLogs On
<VirtualHost 127.0.0.1:$args{port}>
    $proxy
</VirtualHost>
<VirtualHost 127.0.0.1:$args{tls}>
    SSLEngine on
    SSLProtocol -all +TLSv1.3
    SSLCertificateFile $args{cert}
    SSLCertificateKeyFile $args{key}
    $proxy
</VirtualHost>
EOT
    close $conf;
    return Bench::Process->start(
        command => [httpd(), '-DFOREGROUND', '-d', $dir, '-f', "$dir/httpd.conf"],
        log => "$dir/error.log", ports => [@args{qw(port tls)}]);
}

1;
